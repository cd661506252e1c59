"""S4: why a HiPPO matrix is cheap. It is normal plus rank one, and that is enough (arXiv 2111.00396).

A normal matrix can be diagonalised by a unitary V, which loses no precision; LegS itself cannot, its eigenvectors
grow like 2^(4N/3) (Lemma 3.2). In the coordinates of V the model is *diagonal* plus rank one, A = Λ − P Q*, and with
the bilinear rule (the one S4 uses) a step costs O(N) and the kernel one Cauchy sum per frequency: no N × N matrix
appears in either. C is a row throughout: the output is Σ_n C_n h_n, and nothing is conjugated.
"""

from types import ModuleType
from typing import NamedTuple

import numpy as np

from ssm_kit.lti._arrays import Array, arrays, require, require_count, require_per_channel, require_shape
from ssm_kit.lti.hippo import hippo_legs


class DPLR(NamedTuple):
    """A model in diagonal plus low-rank form, A = diag(Lambda) − P Q*, and how to reach it from the original."""

    Lambda: Array
    """(N,) complex: the eigenvalues of the normal part."""
    P: Array
    """(N,) complex: V* P of the original."""
    Q: Array
    """(N,) complex: V* Q of the original; for LegS equal to P."""
    B: Array
    """(N,) complex: V* B of the original."""
    V: Array
    """(N, N) unitary: original A = V (diag(Lambda) − P Q*) V*, state h = V h', output row C' = C V."""


def legs_nplr(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """HiPPO-LegS as normal plus rank one (S4, Theorem 1): A = normal − P Pᵀ with P_n = √(n + ½).

    Args:
        size: N >= 1.

    Returns:
        (normal, P, B), float64 NumPy arrays of shape (N, N), (N,), (N,). normal + I/2 is skew-symmetric, so the
        eigenvalues of `normal` lie on Re = −½; and B = √2 P.

    Raises:
        ValueError: size is not an integer >= 1.
    """
    A, B = hippo_legs(size)
    P = B / np.sqrt(2)
    return A + np.outer(P, P), P, B


def legs_dplr(size: int) -> DPLR:
    """HiPPO-LegS in S4's coordinates: the normal part diagonalised, eigenvalues sorted by imaginary part.

    Args:
        size: N >= 1.

    Returns:
        DPLR of complex128 NumPy arrays. Eigenvalues come in conjugate pairs, n and N − 1 − n; an odd N has the real
        one −½ in the middle.

    Raises:
        ValueError: size is not an integer >= 1.
    """
    normal, P, B = legs_nplr(size)
    skew = normal + np.eye(size) / 2
    frequencies, V = np.linalg.eigh(-1j * skew)  # Hermitian: real eigenvalues, V unitary to the last bit
    P, B = V.conj().T @ P, V.conj().T @ B
    return DPLR(-0.5 + 1j * frequencies, P, P, B, V)


def truncated_output(A_bar: Array, C: Array, length: int) -> Array:
    """C̃ = C (I − Ā^L): the row with which L taps of a kernel are one closed formula (S4, Algorithm 1, line 1).

    Σ_{i<L} C Āⁱ B̄ ωⁱ is a finite geometric series; at every L-th root of unity its sum is C̃ (I − Ā ω)⁻¹ B̄.

    Args:
        A_bar: (..., N, N), dense.
        C: (..., N).
        length: L >= 1.

    Returns:
        C̃, (..., N), in the library and common dtype of the arguments; O(N³ log L) work.

    Raises:
        ValueError: length < 1, shapes that do not fit, NaN or infinity, a dtype that is not floating, numpy
            mixed with torch.
    """
    require_count("length", length)
    xp, (A_bar, C) = arrays(A_bar=A_bar, C=C)
    if C.ndim < 1:
        raise ValueError(f"C must have shape (..., N); got {tuple(C.shape)}")
    require_shape("A_bar", A_bar, (*C.shape, C.shape[-1]), "one matrix (N, N) for each row of C")
    return C - (C[..., None, :] @ xp.linalg.matrix_power(A_bar, length))[..., 0, :]


def dplr_kernel(Lambda: Array, P: Array, Q: Array, B: Array, C_tilde: Array, delta: Array, length: int) -> Array:
    """The kernel K_i = C Āⁱ B̄ of A = diag(Λ) − P Q*, bilinear, in O(N L) and without Ā (S4, Algorithm 1).

    The generating function Σ K_i ωⁱ = C̃ (I − Ā ω)⁻¹ B̄ is evaluated at the L-th roots of unity, where it takes four
    Cauchy sums: the rank-one part leaves the inverse by the Woodbury identity. The inverse FFT then gives the taps.

    Args:
        Lambda, P, Q, B: (N,) for one channel, (D, N) for D independent ones.
        C_tilde: the same shape: `truncated_output` of the row C. S4 trains C̃ itself, for one fixed length.
        delta: the step, > 0, a scalar or one per channel, (D,).
        length: L >= 1, the length that C̃ was made for.

    Returns:
        K, (L,) or (L, D), complex, in the library and precision of the arguments. Where all parameters come in
        conjugate pairs, as those of LegS do, the kernel is real (take `.real`).

    Raises:
        ValueError: length < 1, shapes that do not fit, delta <= 0, NaN or infinity, a dtype that is not floating,
            numpy mixed with torch.
    """
    require_count("length", length)
    xp, (Lambda, P, Q, B, C, delta) = _model(Lambda, delta, P=P, Q=Q, B=B, C_tilde=C_tilde)
    omega = _roots_of_unity(xp, length, Lambda)
    cauchy = _cauchy(omega, Lambda, delta)  # (..., L, N)
    products = xp.stack([C * B, C * P, Q.conj() * B, Q.conj() * P], -1)  # (..., N, 4)
    cb, cp, qb, qp = xp.moveaxis(cauchy @ products, -1, 0)  # each (..., L)
    half = (1 + omega) / 2
    return xp.moveaxis(xp.fft.ifft(cb - half * cp * qb / (1 + half * qp)), -1, 0)


def dplr_response(Lambda: Array, P: Array, Q: Array, B: Array, delta: Array, length: int) -> Array:
    """(I − Ā ω)⁻¹ B̄ at the L-th roots of unity ω: the state that the wave ω^-k as input settles into, in O(N L).

    Args:
        Lambda, P, Q, B: (N,) for one channel, (D, N) for D independent ones.
        delta: the step, > 0, a scalar or one per channel, (D,).
        length: L >= 1.

    Returns:
        (L, N) or (L, D, N), complex; entry j belongs to ω = exp(−2πi j / L), the order of the FFT.

    Raises:
        ValueError: as `dplr_kernel`.
    """
    require_count("length", length)
    xp, (Lambda, P, Q, B, delta) = _model(Lambda, delta, P=P, Q=Q, B=B)
    omega = _roots_of_unity(xp, length, Lambda)
    cauchy = _cauchy(omega, Lambda, delta)  # (..., L, N)
    to_p, to_b = cauchy * P[..., None, :], cauchy * B[..., None, :]
    qp, qb = ((Q.conj()[..., None, :] * to).sum(-1) for to in (to_p, to_b))  # (..., L)
    half = (1 + omega) / 2
    return xp.moveaxis(to_b - (half * qb / (1 + half * qp))[..., None] * to_p, -2, 0)


def dplr_step(Lambda: Array, P: Array, Q: Array, B: Array, delta: Array, h: Array, x: Array) -> Array:
    """One step h' = Ā h + B̄ x of A = diag(Λ) − P Q* under the bilinear rule, in O(N) (S4, Theorem 2).

    Args:
        Lambda, P, Q, B: (N,) for one channel, (D, N) for D independent ones.
        delta: the step, > 0, a scalar or one per channel, (D,).
        h: (..., N) or (..., D, N), the state before.
        x: (...) or (..., D), the input of this step.

    Returns:
        The state after, the shape of h, complex, in the library and precision of the arguments.

    Raises:
        ValueError: shapes that do not fit, delta <= 0, NaN or infinity, a dtype that is not floating, numpy mixed
            with torch.
    """
    _, (Lambda, P, Q, B, delta, h, x) = _model(Lambda, delta, {"h": h, "x": x}, P=P, Q=Q, B=B)
    _require_signals(h, x, tuple(Lambda.shape))
    half = (delta / 2)[..., None]
    Q = Q.conj()
    forward = h + half * (Lambda * h - P * (Q * h).sum(-1)[..., None]) + 2 * half * B * x[..., None]
    diagonal = 1 / (1 - half * Lambda)  # (I − ΔA/2)⁻¹ by Woodbury: this diagonal, and a correction along P
    along = diagonal * P
    share = half[..., 0] * (Q * diagonal * forward).sum(-1) / (1 + half[..., 0] * (Q * along).sum(-1))
    return diagonal * forward - along * share[..., None]


def _cauchy(omega: Array, Lambda: Array, delta: Array) -> Array:
    """r_n(ω) = 2Δ / (2(1 − ω) − (1 + ω) Δ λ_n), (..., L, N): the entries of the Cauchy matrix, made finite.

    S4 writes 2/(1 + ω) · 1/(z − λ_n) with z = (2/Δ)(1 − ω)/(1 + ω), and z is infinite at ω = −1, a root of unity of
    every even length. Multiplied out, nothing is.
    """
    step = delta[..., None, None]
    return 2 * step / (2 * (1 - omega[:, None]) - (1 + omega[:, None]) * step * Lambda[..., None, :])


def _roots_of_unity(xp: ModuleType, length: int, like: Array) -> Array:
    omega = np.exp(-2j * np.pi / length * np.arange(length))
    return xp.asarray(omega, dtype=like.dtype, device=like.device)


def _model(
    Lambda: Array, delta: Array, signals: dict[str, Array] | None = None, **vectors: Array
) -> tuple[ModuleType, list[Array]]:
    """Check a DPLR model; return the library, and Lambda, the vectors, delta and the signals, all of them complex."""
    signals = signals or {}
    named = {"Lambda": Lambda, **vectors, "delta": delta, **signals}
    xp, (_, *checked) = arrays(unit=1j, **named)  # the unit makes the common dtype complex
    named = dict(zip(named, checked, strict=True))
    shape, delta = tuple(named["Lambda"].shape), named["delta"]
    if len(shape) not in (1, 2) or 0 in shape:
        raise ValueError(f"Lambda must have shape (N,) or (D, N); got {shape}")
    for name in vectors:
        require_shape(name, named[name], shape, "the shape of Lambda")
    require_per_channel("delta", delta, shape[:-1])
    require("delta", delta, (delta.real > 0) & (delta.imag == 0), "a positive real step")
    return xp, checked


def _require_signals(h: Array, x: Array, shape: tuple[int, ...]) -> None:
    if tuple(h.shape[-len(shape) :]) != shape:
        raise ValueError(f"h must end in the shape of Lambda, {shape}; got {tuple(h.shape)}")
    require_shape("x", x, tuple(h.shape[:-1]), "h without its last axis")
