"""S4: LegS is normal plus rank one, and the Cauchy kernel is the kernel."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from ssm_kit.lti import (
    discretize,
    dplr_kernel,
    dplr_response,
    dplr_step,
    hippo_legs,
    kernel,
    legs_dplr,
    legs_nplr,
    recurrence,
    truncated_output,
)

SIZES = (1, 2, 3, 8, 9, 64)
LENGTHS = (1, 2, 7, 32, 33, 500)


def random_dplr(shape: tuple[int, ...], seed: int = 0) -> list[np.ndarray]:
    """Λ, P, Q, B, C, all complex, with P unlike Q: the general form, not LegS. Stable, since P and Q are small."""
    rng = np.random.default_rng(seed)
    Lambda = -rng.uniform(0.5, 1, shape) + 1j * rng.uniform(-5, 5, shape)
    return [Lambda, *(0.3 * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) for _ in range(4))]


def dense(Lambda: np.ndarray, P: np.ndarray, Q: np.ndarray) -> np.ndarray:
    return Lambda[..., None] * np.eye(Lambda.shape[-1]) - P[..., :, None] * Q.conj()[..., None, :]


@pytest.mark.parametrize("size", SIZES)
def test_legs_is_normal_plus_rank_one(size):
    A, B = hippo_legs(size)
    normal, P, B_again = legs_nplr(size)
    np.testing.assert_allclose(normal - np.outer(P, P), A, atol=1e-12 * size)
    np.testing.assert_array_equal(B_again, B)
    np.testing.assert_allclose(P, np.sqrt(np.arange(size) + 0.5), rtol=1e-15)
    skew = normal + np.eye(size) / 2
    np.testing.assert_allclose(skew, -skew.T, atol=1e-12 * size)


@pytest.mark.parametrize("size", SIZES)
def test_dplr_is_legs_in_other_coordinates(size):
    A, B = hippo_legs(size)
    model = legs_dplr(size)
    np.testing.assert_allclose(model.V.conj().T @ model.V, np.eye(size), atol=1e-13)
    back = model.V @ dense(model.Lambda, model.P, model.Q) @ model.V.conj().T
    np.testing.assert_allclose(back, A, atol=1e-13 * size**2)
    np.testing.assert_allclose(model.V @ model.B, B, atol=1e-13 * size)
    np.testing.assert_array_equal(model.Lambda.real, -0.5)
    np.testing.assert_allclose(model.Lambda, model.Lambda.conj()[::-1], atol=1e-13 * size**2)
    assert np.count_nonzero(abs(model.Lambda.imag) < 1e-12) == size % 2


def test_the_eigenvectors_of_legs_itself_explode():
    """Why S4 needs the low-rank term: diagonalising A directly costs all digits, V above costs none."""
    conditions = [np.linalg.cond(np.linalg.eig(hippo_legs(size)[0])[1]) for size in (4, 8, 16)]
    assert all(after > 50 * before for before, after in pairwise(conditions))
    assert np.linalg.cond(legs_dplr(16).V) < 1 + 1e-12


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("length", LENGTHS)
def test_cauchy_kernel_of_legs_equals_the_brute_force_kernel(size, length):
    (A, B), C, delta = hippo_legs(size), np.random.default_rng(size).standard_normal(size), 0.05
    expected = kernel(*discretize(A, B, delta, "bilinear"), C, length)
    model = legs_dplr(size)
    row = C @ model.V
    A_bar, _ = discretize(dense(*model[:3]), model.B, delta, "bilinear")
    K = dplr_kernel(model.Lambda, model.P, model.Q, model.B, truncated_output(A_bar, row, length), delta, length)
    scale = abs(expected).max()
    np.testing.assert_allclose(K.real / scale, expected / scale, atol=1e-11)
    np.testing.assert_allclose(K.imag / scale, 0, atol=1e-11)


@pytest.mark.parametrize("shape", [(5,), (3, 4)])
@pytest.mark.parametrize("length", [1, 6, 13])
def test_kernel_response_and_step_of_any_dplr_model(shape, length):
    Lambda, P, Q, B, C = random_dplr(shape)
    delta = np.array([0.1, 0.3, 1.7])[: len(shape) * 3 - 3] if len(shape) > 1 else 0.3
    A_bar, B_bar = discretize(dense(Lambda, P, Q), B, delta, "bilinear")
    K = dplr_kernel(Lambda, P, Q, B, truncated_output(A_bar, C, length), delta, length)
    np.testing.assert_allclose(K, kernel(A_bar, B_bar, C, length), atol=1e-12)

    omega = np.exp(-2j * np.pi * np.arange(length) / length).reshape(-1, *(1,) * A_bar.ndim)
    expected = np.linalg.solve(np.eye(shape[-1]) - A_bar * omega, np.broadcast_to(B_bar, (length, *shape))[..., None])
    np.testing.assert_allclose(dplr_response(Lambda, P, Q, B, delta, length), expected[..., 0], atol=1e-12)

    rng = np.random.default_rng(1)
    h, x = rng.standard_normal((2, *shape)) + 1j, rng.standard_normal((2, *shape[:-1]))
    after = (A_bar @ h[..., None])[..., 0] + B_bar * x[..., None]
    np.testing.assert_allclose(dplr_step(Lambda, P, Q, B, delta, h, x), after, atol=1e-12)


def test_steps_run_the_same_model_as_the_kernel():
    Lambda, P, Q, B, C = random_dplr((3, 6))
    x, h, outputs = np.random.default_rng(0).standard_normal((20, 3)), np.zeros((3, 6)), []
    for x_k in x:
        h = dplr_step(Lambda, P, Q, B, 0.2, h, x_k)
        outputs.append((C * h).sum(-1))
    A_bar, B_bar = discretize(dense(Lambda, P, Q), B, 0.2, "bilinear")
    np.testing.assert_allclose(outputs, recurrence(A_bar, B_bar, C, x), atol=1e-12)


def test_truncated_output_makes_a_finite_sum_of_the_geometric_series():
    Lambda, P, Q, B, C = random_dplr((4,))
    A_bar, B_bar = discretize(dense(Lambda, P, Q), B, 0.1, "bilinear")
    omega = np.exp(-2j * np.pi * 3 / 7)
    finite = sum(C @ np.linalg.matrix_power(A_bar, i) @ B_bar * omega**i for i in range(7))
    closed = truncated_output(A_bar, C, 7) @ np.linalg.solve(np.eye(4) - A_bar * omega, B_bar)
    assert abs(finite - closed) < 1e-13


def test_torch_gives_the_same_and_a_gradient():
    parts = [torch.from_numpy(part).requires_grad_() for part in random_dplr((2, 4))]
    delta = torch.tensor([0.1, 0.4], dtype=torch.float64, requires_grad=True)
    K = dplr_kernel(*parts, delta, 9)
    expected = dplr_kernel(*(part.detach().numpy() for part in parts), delta.detach().numpy(), 9)
    np.testing.assert_allclose(K.detach().numpy(), expected, atol=1e-13)

    def real_and_imaginary(*arguments):
        K = dplr_kernel(*arguments, 5)
        return K.real, K.imag

    assert torch.autograd.gradcheck(real_and_imaginary, (*parts, delta))


def test_single_precision_stays_single():
    parts = [part.astype("complex64") for part in random_dplr((4,))]
    assert dplr_kernel(*parts, np.float32(0.1), 8).dtype == np.complex64
    assert dplr_step(*parts[:4], np.float32(0.1), np.zeros(4, "float32"), np.float32(1)).dtype == np.complex64


ones = np.ones(3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: legs_dplr(0), "size must be an integer >= 1; got 0"),
        (lambda: dplr_kernel(*[ones] * 5, 0.1, 0), "length must be an integer >= 1; got 0"),
        (lambda: dplr_kernel(*[ones] * 5, -0.1, 4), "delta must be a positive real step"),
        (lambda: dplr_kernel(*[ones] * 5, ones, 4), r"delta must have shape \(\), one number; got \(3,\)"),
        (lambda: dplr_kernel(*[ones] * 4, np.ones(2), 0.1, 4), r"C_tilde must have shape \(3,\)"),
        (lambda: dplr_response(np.ones((1, 2, 3)), *[ones] * 3, 0.1, 4), r"Lambda must have shape \(N,\) or \(D, N\)"),
        (lambda: dplr_step(*[ones] * 4, 0.1, np.ones(2), np.ones(())), r"h must end in the shape of Lambda, \(3,\)"),
        (lambda: dplr_step(*[ones] * 4, 0.1, np.ones((2, 3)), np.ones(3)), r"x must have shape \(2,\)"),
        (lambda: dplr_step(*[ones] * 4, 0.1, ones, torch.ones(())), "all numpy or all torch"),
        (lambda: truncated_output(ones, ones, 3), r"A_bar must have shape \(3, 3\)"),
        (lambda: truncated_output(np.eye(3), ones, 0), "length must be an integer >= 1; got 0"),
        (lambda: truncated_output(np.eye(3), 1.0, 2), r"C must have shape \(\.\.\., N\)"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
