"""`discretize` against closed forms, against itself (dense and diagonal, NumPy and torch), and against bad input."""

import math
import subprocess
import sys
from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from ssm_kit.lti import discretize
from ssm_kit.lti.discretize import phi1

METHODS = ("zoh", "bilinear", "euler", "mamba")
steps = st.floats(1e-4, 2.0)
seeds = st.integers(0, 2**32 - 1)


def dense_model(size, seed):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((size, size)) - size**0.5 * np.eye(size), rng.standard_normal(size)


def exact_phi1(z: complex) -> complex:
    """Σ zᵏ/(k+1)! in exact rational arithmetic."""
    re, im = Fraction(z.real), Fraction(z.imag)
    total, term, k = [Fraction(1), Fraction(0)], (Fraction(1), Fraction(0)), 1
    while k < 12 + 8 * abs(z):
        k += 1
        term = ((term[0] * re - term[1] * im) / k, (term[0] * im + term[1] * re) / k)
        # rounding the terms to 200 binary digits keeps the fractions short
        term = tuple(Fraction(round(part * 2**200), 2**200) for part in term)
        total = [total[0] + term[0], total[1] + term[1]]
    return complex(float(total[0]), float(total[1]))


class TestFormulas:
    @given(a=st.floats(-50, 5), b=st.floats(-3, 3), delta=steps)
    def test_zoh_is_the_exact_answer_to_a_held_input(self, a, b, delta):
        A_bar, B_bar = discretize(np.array([a]), np.array([b]), delta)
        z = delta * a
        integral = math.expm1(z) / a if abs(a) > 1e-200 else delta  # no digits are left in a subnormal z
        assert A_bar[0] == pytest.approx(math.exp(z), rel=1e-14)
        assert B_bar[0] == pytest.approx(integral * b, rel=1e-14, abs=1e-300)

    @given(seed=seeds, size=st.integers(1, 5), delta=steps)
    def test_two_held_steps_are_one_of_twice_the_length(self, seed, size, delta):
        A, B = dense_model(size, seed)
        once, twice = discretize(A, B, delta), discretize(A, B, 2 * delta)
        np.testing.assert_allclose(twice[0], once[0] @ once[0], rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(twice[1], once[0] @ once[1] + once[1], rtol=1e-12, atol=1e-14)

    def test_double_integrator_has_no_inverse_and_an_exact_answer(self):
        A, B, delta = np.array([[0.0, 1.0], [0.0, 0.0]]), np.array([0.0, 1.0]), 0.3
        A_bar, B_bar = discretize(A, B, delta)
        np.testing.assert_allclose(A_bar, [[1, delta], [0, 1]], rtol=1e-15)
        np.testing.assert_allclose(B_bar, [delta**2 / 2, delta], rtol=1e-15)

    @pytest.mark.parametrize("rate", [1e-8, 1e-3, 0.03, 0.4, 3.0, 40.0])
    def test_dense_exponential_of_a_jordan_block(self, rate):
        """exp of [[−r, r], [0, −r]] is e^{−r} [[1, r], [0, 1]]: never diagonal, and exact at every size."""
        A_bar, _ = discretize(rate * np.array([[-1.0, 1.0], [0.0, -1.0]]), np.ones(2), 1.0)
        np.testing.assert_allclose(A_bar, math.exp(-rate) * np.array([[1, rate], [0, 1]]), rtol=1e-13)

    def test_oscillator_turns_by_delta_times_its_frequency(self):
        delta, omega = 0.4, 2.0
        A_bar, B_bar = discretize(np.array([[0, -omega], [omega, 0]]), np.array([1.0, 0.0]), delta)
        c, s = math.cos(omega * delta), math.sin(omega * delta)
        np.testing.assert_allclose(A_bar, [[c, -s], [s, c]], rtol=1e-14)
        np.testing.assert_allclose(B_bar, [s / omega, (1 - c) / omega], rtol=1e-14)

    def test_bilinear_and_euler_by_hand(self):
        A, B = np.array([[-1.0, 2.0], [0.5, -3.0]]), np.array([1.0, -2.0])
        inverse = np.linalg.inv(np.eye(2) - 0.1 * A)
        A_bar, B_bar = discretize(A, B, 0.2, "bilinear")
        np.testing.assert_allclose(A_bar, inverse @ (np.eye(2) + 0.1 * A), rtol=1e-14)
        np.testing.assert_allclose(B_bar, inverse @ (0.2 * B), rtol=1e-14)
        A_bar, B_bar = discretize(A, B, 0.2, "euler")
        np.testing.assert_allclose(A_bar, np.eye(2) + 0.2 * A, rtol=1e-15)
        np.testing.assert_allclose(B_bar, 0.2 * B, rtol=1e-15)

    @pytest.mark.parametrize(
        ("size", "ratio"),
        [(0.001, 0.9995), (0.01, 0.995), (0.1, 0.952), (0.5, 0.787), (1, 0.632), (1.6, 0.499), (2, 0.432), (5, 0.199)],
    )
    def test_mamba_writes_more_than_zoh(self, size, ratio):
        A, B = np.array([-1.0]), np.array([1.0])
        exact, simplified = discretize(A, B, size, "zoh"), discretize(A, B, size, "mamba")
        assert exact[0] == simplified[0]
        assert (exact[1] / simplified[1])[0] == pytest.approx(ratio, abs=0.0005)

    @given(z=st.floats(-20, 20))
    def test_zoh_with_a_softplus_step_is_a_gate(self, z):
        """Mamba's theorem 1: A = −1, B = 1, Δ = softplus(z) give h = (1 − g)h + g x with g = σ(z)."""
        gate = 1 / (1 + math.exp(-z))
        A_bar, B_bar = discretize(np.array([-1.0]), np.array([1.0]), math.log1p(math.exp(z)))
        assert B_bar[0] == pytest.approx(gate, rel=1e-12)
        assert A_bar[0] == pytest.approx(1 - gate, rel=1e-6, abs=1e-15)

    @given(re=st.floats(-30, -1e-3), im=st.floats(-30, 30), delta=steps)
    def test_bilinear_keeps_every_stable_mode_stable(self, re, im, delta):
        A_bar, _ = discretize(np.array([complex(re, im)]), np.ones(1), delta, "bilinear")
        assert abs(A_bar[0]) < 1

    def test_euler_explodes_beyond_delta_2_over_a(self):
        assert abs(discretize(np.array([-1.0]), np.ones(1), 2.1, "euler")[0][0]) > 1
        assert abs(discretize(np.array([-1.0]), np.ones(1), 1.9, "euler")[0][0]) < 1


class TestAccuracy:
    @settings(max_examples=60)
    @given(radius=st.floats(0, 25), angle=st.floats(0, 2 * math.pi))
    def test_phi1_complex(self, radius, angle):
        z = radius * complex(math.cos(angle), math.sin(angle))
        expected, scale = exact_phi1(z), max(abs(exact_phi1(z)), 1 / max(abs(z), 1))
        assert abs(complex(phi1(np, np.array(z))) - expected) <= 4e-15 * scale
        assert abs(complex(phi1(torch, torch.tensor(z, dtype=torch.complex128))) - expected) <= 4e-15 * scale

    @pytest.mark.parametrize("z", [0.0, -1e-300, 1e-16, -1e-8, 1e-4, -0.1, 0.49999, 0.5, -0.5, 0.50001, -3.0, -700.0])
    def test_phi1_real(self, z):
        expected = math.expm1(z) / z if z else 1.0
        assert float(phi1(np, np.array(z))) == pytest.approx(expected, rel=3e-16)

    @pytest.mark.parametrize("z", [0.0, 1e-9, -1e-5, 0.3, 0.4999, 0.5001, -0.5001, -2.0])
    def test_derivative_of_phi1(self, z):
        """φ₁'(z) = Σ (k+1) zᵏ/(k+2)!, which the quotient rule loses to cancellation near 0."""
        expected = math.fsum((k + 1) * z**k / math.factorial(k + 2) for k in range(40))
        point = torch.tensor(z, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(phi1(torch, point), point)
        assert slope.item() == pytest.approx(expected, rel=4e-15)

    @staticmethod
    def error(method, delta, drive, average=False):
        """Error at t = 2 of x' = −x + u(t), x(0) = 1, against the exact solution for u = drive."""
        count = round(2 / delta)
        A_bar, B_bar = discretize(np.array([-1.0]), np.ones(1), delta, method)
        h = 1.0
        for k in range(1, count + 1):
            u = {"zero": lambda t: 0.0, "one": lambda t: 1.0, "sin": math.sin}[drive]
            x_k = (u((k - 1) * delta) + u(k * delta)) / 2 if average else u(k * delta)
            h = A_bar[0] * h + B_bar[0] * x_k
        exact = {
            "zero": math.exp(-2),
            "one": 1.0,
            "sin": 1.5 * math.exp(-2) + (math.sin(2) - math.cos(2)) / 2,
        }[drive]
        return abs(h - exact)

    @pytest.mark.parametrize(
        ("method", "drive", "average", "order"),
        [
            ("euler", "zero", False, 1),
            ("bilinear", "zero", False, 2),
            ("euler", "sin", False, 1),
            ("mamba", "one", False, 1),
            ("zoh", "sin", False, 1),
            ("mamba", "sin", False, 1),
            ("bilinear", "sin", False, 1),  # B̄ x_k alone, as in S4's code
            ("bilinear", "sin", True, 2),  # the trapezoidal rule proper, which averages two inputs
        ],
    )
    def test_order(self, method, drive, average, order):
        coarse, fine = (self.error(method, delta, drive, average) for delta in (2 / 200, 2 / 400))
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.05)

    @pytest.mark.parametrize(("method", "drive"), [("zoh", "zero"), ("mamba", "zero"), ("zoh", "one")])
    def test_exact_where_it_should_be(self, method, drive):
        assert self.error(method, 0.5, drive) < 1e-15


class TestShapesAndLibraries:
    @pytest.mark.parametrize("method", METHODS)
    @given(seed=seeds, channels=st.sampled_from([(), (3,), (2, 3)]), size=st.integers(1, 5), kind=st.booleans())
    @settings(max_examples=25)
    def test_a_diagonal_matrix_is_a_dense_one(self, method, seed, channels, size, kind):
        rng = np.random.default_rng(seed)
        A = -rng.uniform(0, 4, (*channels, size)) + kind * 1j * rng.standard_normal((*channels, size))
        B, delta = rng.standard_normal((*channels, size)), rng.uniform(0.01, 1, channels)
        diagonal = discretize(A, B, delta, method)
        dense = discretize(A[..., None] * np.eye(size), B, delta, method)
        np.testing.assert_allclose(dense[0], diagonal[0][..., None] * np.eye(size), rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(dense[1], diagonal[1], rtol=1e-12, atol=1e-15)

    @pytest.mark.parametrize("method", METHODS)
    @given(seed=seeds)
    @settings(max_examples=20)
    def test_dense_is_diagonal_in_its_eigenvectors(self, method, seed):
        A, B = dense_model(4, seed)
        poles, vectors = np.linalg.eig(A)
        if np.linalg.cond(vectors) > 1e3 or abs(0.3 * poles - 2).min() < 0.1:
            return  # the eigenvectors, not the discretisation, would set the error
        modes = discretize(poles, np.linalg.solve(vectors, B), 0.3, method)
        A_bar, B_bar = discretize(A, B, 0.3, method)
        np.testing.assert_allclose(vectors @ np.diag(modes[0]) @ np.linalg.inv(vectors), A_bar, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(vectors @ modes[1], B_bar, rtol=1e-9, atol=1e-10)

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("shape", [(3,), (3, 3), (2, 3), (2, 3, 3)])
    def test_zero_matrix(self, method, shape):
        dense = shape[-2:] == (3, 3)
        B = np.arange(1.0, 1 + np.prod(shape[:-1] if dense else shape)).reshape(shape[:-1] if dense else shape)
        A_bar, B_bar = discretize(np.zeros(shape), B, 0.25, method)
        np.testing.assert_array_equal(A_bar, np.broadcast_to(np.eye(3), shape) if dense else np.ones(shape))
        np.testing.assert_allclose(B_bar, 0.25 * B, rtol=1e-15)

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("dense", [False, True])
    @pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
    def test_torch_equals_numpy_in_every_dtype(self, method, dense, dtype):
        A, B = dense_model(4, 1)
        A, B = (A if dense else np.diag(A)).astype(dtype), B.astype(dtype)
        ours = discretize(A, B, 0.2, method)
        theirs = discretize(torch.from_numpy(A), torch.from_numpy(B), 0.2, method)
        for mine, other in zip(ours, theirs, strict=True):
            assert isinstance(mine, np.ndarray)
            assert str(mine.dtype) == dtype
            assert str(other.dtype) == f"torch.{dtype}"
            np.testing.assert_allclose(mine, other.numpy(), rtol=1e-5 if dtype in ("float32", "complex64") else 1e-13)

    def test_a_step_per_channel(self):
        A, B = np.full((2, 3), -1.0), np.ones((2, 3))
        A_bar, _ = discretize(A, B, np.array([0.1, 0.2]))
        np.testing.assert_allclose(A_bar, np.exp([[-0.1] * 3, [-0.2] * 3]), rtol=1e-15)

    def test_arguments_are_left_alone(self):
        A, B = np.array([-1.0, 0.0]), np.ones(2)
        A_bar, B_bar = discretize(A, B, 1.0, "mamba")
        A_bar += 1
        B_bar += 1
        np.testing.assert_array_equal(A, [-1, 0])
        np.testing.assert_array_equal(B, [1, 1])

    def test_numpy_users_do_not_import_torch(self):
        code = (
            "import sys, numpy as np, ssm_kit.lti as lti\n"
            "A, B = lti.discretize(np.array([-1.0]), np.ones(1), 0.1)\n"
            "lti.convolve(np.ones(8), lti.kernel(A, B, B, 8)); lti.recurrence(A, B, B, np.ones(8))\n"
            "assert 'torch' not in sys.modules\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gradients(method, dense, dtype):
    torch.manual_seed(0)
    A = torch.randn(2, 3, 3, dtype=dtype) if dense else torch.randn(2, 3, dtype=dtype)
    A[..., 0] = 0  # one zero eigenvalue, where A⁻¹(exp(ΔA) − I) has no formula
    B, delta = torch.randn(2, 3, dtype=dtype), torch.tensor([0.2, 0.7], dtype=torch.float64)
    leaves = [leaf.requires_grad_() for leaf in (A, B, delta)]
    assert torch.autograd.gradcheck(lambda *values: discretize(*values, method), leaves)


def test_gradient_at_zero_is_half_a_step_squared():
    A = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    _, B_bar = discretize(A, torch.ones(1, dtype=torch.float64), 0.5)
    assert torch.autograd.grad(B_bar.sum(), A)[0].item() == pytest.approx(0.5**2 / 2, rel=1e-15)


ONE = np.ones(2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((ONE, ONE, 0.0), r"delta must be a positive real step; got 0\.0"),
        ((ONE, ONE, -1), r"delta must be a positive real step; got -1\.0"),
        ((ONE, ONE, 1 + 1j), r"delta must be a positive real step; got \(1\+1j\)"),
        ((np.ones((2, 3)), np.ones((2, 3)), np.array([0.1, -0.2])), r"delta must be a positive real step; got -0\.2"),
        ((ONE, ONE, math.nan), "delta must be finite; got nan"),
        ((np.array([1.0, np.inf]), ONE, 0.1), "A must be finite; got inf"),
        ((torch.ones(2), torch.tensor([1.0, torch.nan]), 0.1), "B must be finite; got nan"),
        ((ONE, ONE, np.array([0.1, 0.2])), r"delta must have shape \(\), one number; got \(2,\)"),
        (
            (np.ones((2, 3)), np.ones((2, 3)), np.full(3, 0.1)),
            r"delta must have shape \(\) or \(2,\), one number per channel; got \(3,\)",
        ),
        (
            (np.ones(3), ONE, 0.1),
            r"A must have shape \(2,\) \(diagonal\) or \(2, 2\) \(dense\) beside B .*; got \(3,\)",
        ),
        ((np.ones((2, 3)), ONE, 0.1), r"A must have shape .*; got \(2, 3\)"),
        ((ONE, 1.0, 0.1), r"B must have shape \(\.\.\., N\) with N >= 1; got \(\)"),
        ((np.ones(0), np.ones(0), 0.1), r"B must have shape \(\.\.\., N\) with N >= 1; got \(0,\)"),
        ((ONE, ONE, 0.1, "tustin"), "method must be one of zoh, bilinear, euler, mamba; got 'tustin'"),
        ((np.array([1, 2]), ONE, 0.1), "A must have dtype float32, float64, complex64 or complex128; got int64"),
        ((torch.ones(2), torch.ones(2, dtype=torch.int32), 0.1), "B must have dtype .*; got int32"),
        ((torch.ones(2, dtype=torch.bfloat16), torch.ones(2), 0.1), "A must have dtype .*; got bfloat16"),
        ((torch.ones(2), ONE, 0.1), r"arguments must be all numpy or all torch; got A \(torch\), B \(numpy\)"),
        ((ONE, [1.0, [2.0]], 0.1), r"B must be an array of numbers; got \[1\.0, \[2\.0\]\]"),
        ((np.array([1.0, 4.0]), ONE, 0.5, "bilinear"), r"delta \* A must be different from 2 .*; got 2\.0"),
        ((4 * np.eye(2), ONE, 0.5, "bilinear"), r"delta \* A must have no eigenvalue 2 .*; got a singular"),
        (
            (4 * torch.eye(2), torch.ones(2), 0.5, "bilinear"),
            r"delta \* A must have no eigenvalue 2 .*; got a singular",
        ),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        discretize(*arguments)
