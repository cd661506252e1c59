"""HiPPO-LegS: what the matrices are, and that the state is the best polynomial fit to the history."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from ssm_kit.lti import discretize, hippo_legs, kernel, legendre, legs_states, reconstruct, recurrence

SIZES = (1, 2, 5, 8, 33)


def gauss(points: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of a quadrature over [0, 1], exact for polynomials of degree 2 · points − 1."""
    nodes, weights = np.polynomial.legendre.leggauss(points)
    return (nodes + 1) / 2, weights / 2


def projection(x: np.ndarray, size: int) -> np.ndarray:
    """∫₀¹ u(s) p_n(s) ds of a staircase u with the steps x, integrated piece by piece."""
    nodes, weights = gauss(size // 2 + 1)
    positions = (np.arange(len(x))[:, None] + nodes) / len(x)  # (L, nodes)
    values = np.polynomial.legendre.legvander(2 * positions - 1, size - 1) * np.sqrt(2 * np.arange(size) + 1)
    return np.einsum("l,lmn,m->n", x, values, weights) / len(x)


def test_the_matrices_for_three_coefficients():
    A, B = hippo_legs(3)
    np.testing.assert_allclose(A, [[-1, 0, 0], [-(3**0.5), -2, 0], [-(5**0.5), -(15**0.5), -3]], rtol=1e-15)
    np.testing.assert_allclose(B, [1, 3**0.5, 5**0.5], rtol=1e-15)


@pytest.mark.parametrize("size", SIZES)
def test_a_is_triangular_with_eigenvalues_minus_one_to_minus_n(size):
    A, B = hippo_legs(size)
    np.testing.assert_array_equal(np.triu(A, 1), 0)
    np.testing.assert_array_equal(np.diag(A), -np.arange(1, size + 1))
    np.testing.assert_array_equal(A[:, 0], -B)  # a constant input has the state (c, 0, 0, ...) for ever


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("length", [1, 2, 9, 60])
def test_states_are_the_legendre_coefficients_of_the_staircase(size, length):
    x = np.random.default_rng(size).standard_normal(length)
    states = legs_states(x, size)
    for k in {1, 2, (length + 1) // 2, length}:
        if k <= length:
            np.testing.assert_allclose(states[k - 1], projection(x[:k], size), atol=1e-11)


def test_no_polynomial_of_that_degree_fits_the_history_better():
    x = np.cumsum(np.random.default_rng(0).standard_normal(50))
    positions = (np.arange(50)[:, None] + gauss(8)[0]).reshape(-1) / 50
    weights, target = np.tile(gauss(8)[1], 50) / 50, np.repeat(x, 8)
    root = np.sqrt(weights)
    best = np.linalg.lstsq(root[:, None] * legendre(positions, 7), root * target)[0]
    np.testing.assert_allclose(legs_states(x, 7)[-1], best, atol=1e-11)


def test_length_does_not_matter_only_shape_does():
    """A constant is remembered exactly; a staircase drawn twice as finely has the same state."""
    np.testing.assert_allclose(legs_states(np.full(30, 2.5), 6)[-1], [2.5, 0, 0, 0, 0, 0], atol=1e-13)
    x = np.sin(np.arange(20) / 3)
    np.testing.assert_allclose(legs_states(np.repeat(x, 2), 6)[1::2], legs_states(x, 6), atol=1e-13)


def test_bilinear_loses_a_share_of_a_constant_that_fades_as_one_over_k():
    states = legs_states(np.ones(200), 6, method="bilinear")
    np.testing.assert_allclose(1 - states[:, 0], 1 / (2 * np.arange(1, 201) + 1), atol=1e-12)


def test_bilinear_follows_its_recurrence():
    x, size = np.random.default_rng(1).standard_normal(12), 4
    (A, B), state, eye = hippo_legs(size), np.zeros(size), np.eye(size)
    for k, x_k in enumerate(x, start=1):
        state = np.linalg.solve(eye - A / (2 * k), (eye + A / (2 * k)) @ state + B / k * x_k)
    np.testing.assert_allclose(legs_states(x, size, method="bilinear")[-1], state, rtol=1e-12)


def test_legendre_polynomials_are_orthonormal():
    nodes, weights = gauss(40)
    p = legendre(nodes, 40)
    np.testing.assert_allclose((p * weights[:, None]).T @ p, np.eye(40), atol=1e-12)
    np.testing.assert_allclose(legendre(np.array([0.0, 1.0]), 4), [(-1.0) ** np.arange(4), [1] * 4] * hippo_legs(4)[1])


def test_a_line_is_reconstructed():
    """Up to the steps of the staircase, 400 of them."""
    positions = np.linspace(0, 1, 21)
    state = legs_states(3 * (np.arange(400) + 0.5) / 400 - 1, 5)[-1]
    np.testing.assert_allclose(reconstruct(state, positions), 3 * positions - 1, atol=1e-4)


def test_more_coefficients_remember_more():
    t = np.linspace(0, 1, 200)
    x = np.sin(12 * t) + 0.5 * np.cos(31 * t)
    errors = [abs(reconstruct(legs_states(x, size)[-1], t) - x).mean() for size in (4, 8, 16, 32)]
    assert all(after < 0.7 * before for before, after in pairwise(errors))
    assert errors[-1] < 0.02


@pytest.mark.parametrize("size", [1, 4, 9])
def test_without_1_over_t_the_past_is_warped_by_e_to_minus_age(size):
    """The impulse response of x' = Ax + Bu, row n, is e^-s p_n(e^-s) (arXiv 2206.12037)."""
    (A, B), delta, steps = hippo_legs(size), 0.02, 300
    A_bar, _ = discretize(A, B, delta)
    ages = delta * np.arange(steps)
    expected = np.exp(-ages)[:, None] * legendre(np.exp(-ages), size)
    for n, row in enumerate(np.eye(size)):
        np.testing.assert_allclose(kernel(A_bar, B, row, steps), expected[:, n], atol=1e-11)


def test_the_time_invariant_model_is_reconstructed_by_age():
    """An input that is a line in e^-age, 20 units of time of it: remembered up to the step of the staircase."""
    (A, B), delta = hippo_legs(6), 0.01
    ages = delta * (np.arange(2000)[::-1] + 0.5)  # the middle of each step
    _, states = recurrence(*discretize(A, B, delta), B, 3 * np.exp(-ages) - 1, return_states=True)
    positions = np.linspace(0.02, 1, 50)
    np.testing.assert_allclose(reconstruct(states[-1], positions), 3 * positions - 1, atol=1e-3)


def test_torch_batches_dtype_and_gradient():
    x = np.random.default_rng(2).standard_normal((2, 3, 11))
    states = legs_states(x, 5)
    assert states.shape == (2, 3, 11, 5)
    np.testing.assert_allclose(states[1, 2], legs_states(x[1, 2], 5), rtol=1e-13)
    tensor = torch.from_numpy(x).requires_grad_()
    theirs = legs_states(tensor, 5)
    np.testing.assert_allclose(theirs.detach().numpy(), states, rtol=1e-12, atol=1e-13)
    theirs[..., -1, 0].sum().backward()
    torch.testing.assert_close(tensor.grad, torch.full_like(tensor, 1 / 11))  # coefficient 0 is the mean
    positions = torch.linspace(0, 1, 4, dtype=torch.float64)
    drawn = reconstruct(theirs, positions)
    assert drawn.shape == (2, 3, 11, 4)
    np.testing.assert_allclose(drawn.detach().numpy(), reconstruct(states, positions.numpy()), rtol=1e-12, atol=1e-12)
    assert legs_states(x.astype("float32"), 5).dtype == legendre(np.float32([0.5]), 3).dtype == np.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hippo_legs(0), "size must be an integer >= 1; got 0"),
        (lambda: hippo_legs(2.0), "size must be an integer >= 1; got 2.0"),
        (lambda: legs_states(np.ones(3), 2, method="euler"), "method must be zoh or bilinear; got 'euler'"),
        (lambda: legs_states(np.ones(0), 2), r"x must have shape \(\.\.\., L\) with L >= 1; got \(0,\)"),
        (lambda: legs_states(1.0, 2), r"x must have shape"),
        (lambda: legs_states(np.array([np.nan]), 2), "x must be finite; got nan"),
        (lambda: legendre(np.array([0.5, 1.5]), 2), "positions must be between 0 and 1; got 1.5"),
        (lambda: reconstruct(np.float64(1), np.zeros(2)), r"states must have shape \(\.\.\., N\)"),
        (lambda: reconstruct(np.ones(2), np.zeros((2, 2))), r"positions must have shape \(M,\); got \(2, 2\)"),
        (lambda: reconstruct(np.ones(2), torch.zeros(2)), "all numpy or all torch"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
