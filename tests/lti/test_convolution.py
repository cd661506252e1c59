"""The two faces of one model: recurrence and convolution are the same map, to the last digits of float64."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from systems import KINDS, LENGTHS, make_system, systems

from ssm_kit.lti import convolve, discretize, kernel, recurrence


def both_faces(system, x, library=np):
    """The outputs by recurrence and by convolution, the kernel, and a bound on |y|: Σ|K| · max|x|."""
    A_bar, B_bar, C, D, x = (library.asarray(part) for part in (*system, x))
    K = kernel(A_bar, B_bar, C, x.shape[x.ndim - B_bar.ndim], D=D)
    bound = float(abs(K).sum(0).max() * abs(x).max())
    return recurrence(A_bar, B_bar, C, x, D=D), convolve(x, K), K, bound


@given(system=systems, length=st.sampled_from(LENGTHS), batch=st.sampled_from([(), (2,)]), torch_too=st.booleans())
@settings(max_examples=150)
def test_recurrence_equals_convolution(system, length, batch, torch_too):
    stepped, convolved, _, bound = both_faces(system, system.inputs(length, batch), torch if torch_too else np)
    assert stepped.shape == convolved.shape
    assert float(abs(stepped - convolved).max()) <= 1e-12 * bound


@pytest.mark.parametrize("method", ["zoh", "bilinear", "mamba"])
def test_a_discretised_model_has_two_faces(method):
    rng = np.random.default_rng(0)
    A, B, C = -rng.uniform(0.1, 2, (3, 8)), rng.standard_normal((3, 8)), rng.standard_normal((3, 8))
    A_bar, B_bar = discretize(A, B, np.array([0.01, 0.1, 1.0]), method)
    x = rng.standard_normal((500, 3))
    y = convolve(x, kernel(A_bar, B_bar, C, 500))
    np.testing.assert_allclose(recurrence(A_bar, B_bar, C, x), y, rtol=0, atol=1e-12 * abs(y).max())


@given(system=systems, length=st.sampled_from(LENGTHS))
@settings(max_examples=40)
def test_kernel_is_the_response_to_an_impulse(system, length):
    impulse = np.zeros((length, *system.channels))
    impulse[0] = 1
    K = kernel(*system[:3], length, D=system.D)
    expected = recurrence(*system[:3], impulse, D=system.D)
    np.testing.assert_allclose(K, expected, rtol=1e-12, atol=1e-13)


def test_kernel_by_matrix_powers():
    system = make_system("dense", (), size=4, seed=1)
    powers = [system.C @ np.linalg.matrix_power(system.A_bar, i) @ system.B_bar for i in range(11)]
    np.testing.assert_allclose(kernel(*system[:3], 11), powers, rtol=1e-13, atol=1e-16)


@given(seed=st.integers(0, 99), length=st.sampled_from(LENGTHS), real_x=st.booleans(), real_K=st.booleans())
def test_convolve_is_the_causal_part_of_the_full_convolution(seed, length, real_x, real_K):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(length) + (not real_x) * 1j * rng.standard_normal(length)
    K = rng.standard_normal(length) + (not real_K) * 1j * rng.standard_normal(length)
    np.testing.assert_allclose(convolve(x, K), np.convolve(x, K)[:length], rtol=0, atol=1e-12 * abs(K).sum())


def test_the_future_does_not_reach_the_past():
    rng = np.random.default_rng(0)
    x, K = rng.standard_normal((2, 64, 3)), rng.standard_normal((64, 3))
    changed = x.copy()
    changed[:, 40:] = rng.standard_normal((2, 24, 3))
    np.testing.assert_allclose(convolve(changed, K)[:, :40], convolve(x, K)[:, :40], atol=1e-12)
    assert abs(convolve(changed, K)[:, 40:] - convolve(x, K)[:, 40:]).max() > 0.1


def test_a_state_that_forgets_at_once():
    zero = np.zeros(3)
    np.testing.assert_array_equal(kernel(zero, np.ones(3), np.ones(3), 5), [3, 0, 0, 0, 0])
    np.testing.assert_array_equal(kernel(zero * 1j, np.ones(3), np.ones(3), 5), [3, 0, 0, 0, 0])


def test_an_unstable_kernel_overflows_no_sooner_than_its_taps():
    """1.5^1025 · 1.5^724 would overflow: the doubling must not raise a power beyond the last tap."""
    K = kernel(np.array([1.5]), np.ones(1), np.ones(1), 1700)
    np.testing.assert_allclose(np.log(K), np.arange(1700) * np.log(1.5), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("library", [np, torch])
def test_dtype_is_kept(dtype, library):
    half = library.asarray(np.full(3, 0.5, dtype))
    K = kernel(half, half, half, 6, D=1.0)
    y = convolve(library.asarray(np.ones((2, 6), dtype)), K)
    assert str(K.dtype).removeprefix("torch.") == str(y.dtype).removeprefix("torch.") == dtype
    assert isinstance(y, np.ndarray) == (library is np)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind):
    system = make_system(kind, (2,), size=3, seed=4)
    leaves = [torch.tensor(value, requires_grad=True) for value in (*system, system.inputs(5))]
    assert torch.autograd.gradcheck(lambda A, B, C, D, x: convolve(x, kernel(A, B, C, 5, D=D)), leaves)


def test_both_faces_have_the_same_gradient():
    system = make_system("real", (), size=4, seed=9)
    x = torch.tensor(system.inputs(37))
    slopes = []
    for face in (lambda A, B, C: recurrence(A, B, C, x), lambda A, B, C: convolve(x, kernel(A, B, C, 37))):
        leaves = [torch.tensor(part, requires_grad=True) for part in system[:3]]
        slopes.append(torch.autograd.grad(face(*leaves).square().sum(), leaves))
    for stepped, convolved in zip(*slopes, strict=True):
        torch.testing.assert_close(stepped, convolved, rtol=1e-11, atol=1e-11)


ONE = np.ones(2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((ONE, ONE, ONE, 0), "length must be an integer >= 1; got 0"),
        ((ONE, ONE, ONE, 2.5), r"length must be an integer >= 1; got 2\.5"),
        ((ONE, np.ones(3), ONE, 4), r"A_bar must have shape \(3,\) .*; got \(2,\)"),
        ((ONE, ONE, np.ones(3), 4), r"C must have shape \(2,\) .*; got \(3,\)"),
        ((ONE, ONE, np.array([1.0, np.inf]), 4), "C must be finite; got inf"),
        ((torch.ones(2), ONE, ONE, 4), "arguments must be all numpy or all torch"),
    ],
)
def test_bad_kernel_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        kernel(*arguments)


def test_bad_skip_term():
    with pytest.raises(ValueError, match=r"D must have shape \(\), one number; got \(2,\)"):
        kernel(ONE, ONE, ONE, 4, D=ONE)


@pytest.mark.parametrize(
    ("x", "K", "message"),
    [
        (np.ones(4), np.ones(3), r"x must end in the shape of K, \(3,\), .*; got \(4,\)"),
        (np.ones(4), np.ones((4, 2)), r"x must end in the shape of K, \(4, 2\), .*; got \(4,\)"),
        (np.ones((4, 3)), np.ones((4, 2)), r"x must end in the shape of K, \(4, 2\), .*; got \(4, 3\)"),
        (np.ones(4), np.ones((1, 4, 2)), r"K must have shape \(L,\) or \(L, D\) with L >= 1; got \(1, 4, 2\)"),
        (np.ones(0), np.ones(0), r"K must have shape .*; got \(0,\)"),
        (np.ones(2), np.array([1.0, np.nan]), "K must be finite; got nan"),
        (np.ones(2, int), np.ones(2), "x must have dtype .*; got int64"),
        (torch.ones(2), np.ones(2), r"all numpy or all torch; got x \(torch\), K \(numpy\)"),
    ],
)
def test_bad_convolution_input(x, K, message):
    with pytest.raises(ValueError, match=message):
        convolve(x, K)
