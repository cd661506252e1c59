"""S4D: four diagonals, and what dropping the low-rank term does to LegS."""

from itertools import pairwise

import numpy as np
import pytest

from ssm_kit.lti import S4D_KINDS, discretize, hippo_legs, kernel, legs_nplr, s4d_init

PAIRED = [kind for kind in S4D_KINDS if kind != "real"]


@pytest.mark.parametrize("kind", PAIRED)
@pytest.mark.parametrize("size", [2, 4, 64])
def test_one_of_each_pair_on_the_line_minus_one_half(kind, size):
    A = s4d_init(size, kind)
    assert A.shape == (size // 2,)
    assert A.dtype == np.complex128
    np.testing.assert_allclose(A.real, -0.5, rtol=1e-14)
    assert (A.imag >= 0).all()


def test_formulas():
    np.testing.assert_array_equal(s4d_init(5, "real"), [-1, -2, -3, -4, -5])
    np.testing.assert_allclose(s4d_init(6, "lin"), -0.5 + 1j * np.pi * np.arange(3), rtol=1e-15)
    np.testing.assert_allclose(s4d_init(4, "inv").imag, [4 / np.pi * 3, 4 / np.pi / 3], rtol=1e-15)


@pytest.mark.parametrize("size", [3, 8, 33])
def test_real_has_the_eigenvalues_of_legs(size):
    np.testing.assert_array_equal(np.diag(hippo_legs(size)[0]), s4d_init(size, "real"))


@pytest.mark.parametrize("size", [2, 8, 64])
def test_legs_has_the_eigenvalues_of_the_normal_part(size):
    A = s4d_init(size, "legs")
    both = np.sort_complex(np.concatenate([A, A.conj()]).round(9))
    np.testing.assert_allclose(np.sort(both.imag), np.sort(np.linalg.eigvals(legs_nplr(size)[0]).imag), atol=1e-8)


def test_inv_is_close_to_legs_and_both_reach_n_squared_over_pi():
    for size in (8, 32, 128):
        legs, inverse = np.sort(s4d_init(size, "legs").imag), np.sort(s4d_init(size, "inv").imag)
        assert abs(legs[-1] - size**2 / np.pi) < 1  # arXiv 2206.11893, conjecture 5: N²/π + O(1)
        assert abs(inverse[-1] / legs[-1] - 1) < 1.1 / size


def test_without_the_low_rank_term_legs_is_reached_as_n_grows():
    """S4D, Theorem 3: the diagonal model with input B/2 tends to LegS itself."""
    errors = []
    for size in (16, 64, 128):
        (A, B), (normal, _, _), first = hippo_legs(size), legs_nplr(size), np.eye(size)[0]
        exact = kernel(*discretize(A, B, 0.01), first, 200)
        approximate = kernel(*discretize(normal, B / 2, 0.01), first, 200)
        errors.append(abs(approximate - exact).max() / abs(exact).max())
    assert all(after < 0.6 * before for before, after in pairwise(errors))
    assert errors[-1] < 0.2


@pytest.mark.parametrize("kind", PAIRED)
def test_half_of_the_pairs_is_the_whole_model(kind):
    A = s4d_init(8, kind)
    rng = np.random.default_rng(0)
    C = rng.standard_normal(4) + 1j * rng.standard_normal(4)
    both = [np.concatenate([part, part.conj()]) for part in (A, np.ones(4, complex), C)]
    A_bar, B_bar = discretize(A, np.ones(4), 0.1)
    whole = kernel(*discretize(both[0], both[1], 0.1), both[2], 30)
    np.testing.assert_allclose(2 * kernel(A_bar, B_bar, C, 30).real, whole.real, atol=1e-13)
    np.testing.assert_allclose(whole.imag, 0, atol=1e-13)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((4, "fourier"), "kind must be one of legs, lin, inv, real; got 'fourier'"),
        ((0,), "size must be an integer >= 1; got 0"),
        ((5, "lin"), "size must be even for kind lin, which keeps one of each conjugate pair; got 5"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        s4d_init(*arguments)
