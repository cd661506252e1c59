"""From continuous to discrete: x'(t) = A x(t) + B u(t) sampled with step Δ becomes h_k = Ā h_{k-1} + B̄ x_k.

Each rule below is one equation in z = ΔA and w = ΔB: nothing else of A, B and Δ ever matters.
"""

import math
from collections.abc import Callable
from types import ModuleType

from ssm_kit.lti._arrays import Array, arrays, is_dense, require, require_per_channel

_TAYLOR_RADIUS = 0.5
_TAYLOR_TERMS = 17  # at |z| = 0.5 the first omitted term and its derivative are below 1e-19


def discretize(A: Array, B: Array, delta: Array, method: str = "zoh") -> tuple[Array, Array]:
    """Discretise the state equation x' = Ax + Bu with step `delta`.

    Args:
        A: (..., N) diagonal, or (..., N, N) dense: one axis more than B. Any finite matrix, singular included.
        B: (..., N), the input vector of each model; the leading axes are independent channels, () or (D,).
        delta: the step, > 0, a scalar or one per channel (...,), in the unit of time that A is written in.
        method: "zoh"       Ā = exp(ΔA), B̄ = A⁻¹(exp(ΔA) − I)B: exact if the input is held over the step
                            (Mamba, arXiv 2312.00752, eq. 4).
                "bilinear"  Ā = (I − ΔA/2)⁻¹(I + ΔA/2), B̄ = (I − ΔA/2)⁻¹ΔB (S4, arXiv 2111.00396, eq. 3).
                "euler"     Ā = I + ΔA, B̄ = ΔB.
                "mamba"     Ā = exp(ΔA), B̄ = ΔB: what the Mamba and Mamba-2 code computes.

    Returns:
        (A_bar, B_bar) with the shapes of A and B, in the library and the common dtype of the arguments
        (float32/64, complex64/128). With torch, differentiable in A, B and delta.

    Raises:
        ValueError: unknown method, shapes that do not fit, delta <= 0, NaN or infinity, a dtype that is not
            floating, numpy mixed with torch, or a bilinear step at which I − ΔA/2 has no inverse.
    """
    if method not in _RULES:
        raise ValueError(f"method must be one of {', '.join(_RULES)}; got {method!r}")
    xp, (A, B, delta) = arrays(A=A, B=B, delta=delta)
    dense = is_dense(A, B, ("A", "B"))
    require_per_channel("delta", delta, tuple(B.shape[:-1]))
    require("delta", delta, (delta.real > 0) & (abs(delta) == delta.real), "a positive real step")
    step = delta[..., None]
    diagonal_rule, dense_rule = _RULES[method]
    return dense_rule(xp, step[..., None] * A, step * B) if dense else diagonal_rule(xp, step * A, step * B)


def phi1(xp: ModuleType, z: Array) -> Array:
    """φ₁(z) = (eᶻ − 1)/z, elementwise, with φ₁(0) = 1: the mean of e^{zs} over 0 <= s <= 1.

    Near 0 the quotient, and above all its derivative, cancels: there the Taylor series Σ zᵏ/(k+1)! takes over.
    Both branches are evaluated everywhere, so the quotient gets a harmless 1 where the series is used:
    otherwise 0/0 would reach the gradient.
    """
    near = abs(z) < _TAYLOR_RADIUS
    far_z, near_z = xp.where(near, 1.0, z), xp.where(near, z, 0.0)
    series = xp.ones_like(z)
    for k in range(_TAYLOR_TERMS, 1, -1):
        series = 1 + series * near_z / k  # Horner: 1 + z/2 (1 + z/3 (1 + ...))
    return xp.where(near, series, xp.expm1(far_z) / far_z)


def _zoh_diagonal(xp: ModuleType, z: Array, w: Array) -> tuple[Array, Array]:
    return xp.exp(z), phi1(xp, z) * w


def _zoh_dense(xp: ModuleType, z: Array, w: Array) -> tuple[Array, Array]:
    exponential, phi = _exp_and_phi1_dense(xp, z)
    return exponential, (phi @ w[..., None])[..., 0]


def _bilinear_diagonal(xp: ModuleType, z: Array, w: Array) -> tuple[Array, Array]:
    require("delta * A", z, z != 2, "different from 2 for method bilinear, which divides by 1 − ΔA/2")
    return (1 + z / 2) / (1 - z / 2), w / (1 - z / 2)


def _bilinear_dense(xp: ModuleType, z: Array, w: Array) -> tuple[Array, Array]:
    eye = _eye(xp, z)
    right = xp.concat([eye + z / 2, w[..., None]], -1)  # (..., N, N + 1): one solve for Ā and B̄
    try:
        solution = xp.linalg.solve(eye - z / 2, right)
    except xp.linalg.LinAlgError as error:
        raise ValueError("delta * A must have no eigenvalue 2 for method bilinear; got a singular I − ΔA/2") from error
    return solution[..., :-1], solution[..., -1]


def _euler_diagonal(xp: ModuleType, z: Array, w: Array) -> tuple[Array, Array]:
    return 1 + z, w


def _euler_dense(xp: ModuleType, z: Array, w: Array) -> tuple[Array, Array]:
    return _eye(xp, z) + z, w


def _mamba_diagonal(xp: ModuleType, z: Array, w: Array) -> tuple[Array, Array]:
    return xp.exp(z), w


def _mamba_dense(xp: ModuleType, z: Array, w: Array) -> tuple[Array, Array]:
    return _exp_and_phi1_dense(xp, z)[0], w


def _exp_and_phi1_dense(xp: ModuleType, z: Array) -> tuple[Array, Array]:
    """exp(z) and φ₁(z) = ∫₀¹ e^{zs} ds of matrices (..., N, N), with no inverse of z: singular ones are no exception.

    Halve z until its norm is below the radius, sum the series of φ₁, and double back: φ₁(2z) = (eᶻ + I)/2 φ₁(z).
    NumPy has no matrix exponential, and torch's float64 one loses four to six digits where the norm is near 0.03
    (measured with 2.13), so both libraries use this one.
    """
    halvings = max(0, math.frexp(abs(z).sum(-1).max().item() / _TAYLOR_RADIUS)[1])
    eye, z = _eye(xp, z), z / 2.0**halvings
    phi = eye
    for k in range(_TAYLOR_TERMS, 1, -1):
        phi = eye + phi @ z / k
    exponential = eye + z @ phi
    for _ in range(halvings):
        phi = (exponential @ phi + phi) / 2
        exponential = exponential @ exponential
    return exponential, phi


def _eye(xp: ModuleType, like: Array) -> Array:
    return xp.eye(like.shape[-1], dtype=like.dtype, device=like.device)


_Rule = Callable[[ModuleType, Array, Array], tuple[Array, Array]]
_RULES: dict[str, tuple[_Rule, _Rule]] = {  # method: (diagonal, dense)
    "zoh": (_zoh_diagonal, _zoh_dense),
    "bilinear": (_bilinear_diagonal, _bilinear_dense),
    "euler": (_euler_diagonal, _euler_dense),
    "mamba": (_mamba_diagonal, _mamba_dense),
}
