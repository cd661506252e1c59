"""SSD, the scan of Mamba-2: one decay per head and step, so that a sequence is worked off by matrix products."""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ssm_kit.ops import _check
from ssm_kit.ops._dispatch import full_precision, resolve
from ssm_kit.ops._varlen import run_packed, sequence_bounds
from ssm_kit.ops.ssd import chunked, reference


def ssd(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    chunk_size: int = 64,
    initial_state: Tensor | None = None,
    return_final_state: bool = False,
    cu_seqlens: Tensor | None = None,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """h_t = exp(Δ_t A) h_{t-1} + Δ_t x_t B_tᵀ, y_t = h_t C_t + D x_t, times SiLU(z_t) if z is given.

    Mamba-2, arXiv 2405.21060, §6 and §7. Every head has one decay and a state h of P × N; H heads share G pairs of
    B and C.

    Args:
        x: (B, L, H, P) input, real floating (as every tensor here but cu_seqlens), no axis empty.
        delta: (B, L, H) step sizes Δ >= 0; any real numbers with `delta_softplus`.
        A: (H,); A <= 0 for a state that does not grow.
        B, C: (B, L, G, N), H a multiple of G: head h belongs to group h // (H / G).
        D: (H,) or (H, P), weight of the skip from x to y.
        z: (B, L, H, P) gate.
        delta_bias: (H,), added to delta first.
        delta_softplus: take Δ = ln(1 + exp(delta + delta_bias)).
        chunk_size: steps per chunk, >= 1. It changes speed and memory, not the result; "reference" has no chunks.
        initial_state: h_0 (B, H, P, N), with `cu_seqlens` (S, H, P, N); None for zeros.
        return_final_state: return the state after the last step too.
        cu_seqlens: (S + 1,) int32 or int64, the bounds 0, ..., L of S sequences packed end to end; B must be 1.
        backend: "reference", "torch", "cuda" or "auto".

    Returns:
        y (B, L, H, P) in the dtype of x. With `return_final_state`, (y, state): state (B, H, P, N), or (S, H, P, N),
        in the common dtype of all arguments and at least float32.

    Raises:
        ValueError: shapes that do not fit, dtypes that are not real floating, several devices, a negative step size,
            a chunk size below 1, bad `cu_seqlens`, an unknown backend.
        NotImplementedError: backend="cuda".
    """
    size = _check_arguments("B L", x, delta, A, B, C, D, z, delta_bias)
    if not isinstance(chunk_size, int) or chunk_size < 1:
        raise ValueError(f"chunk_size must be an integer >= 1; got {chunk_size!r}")
    bounds = None if cu_seqlens is None else sequence_bounds(cu_seqlens, batch=size["B"], length=size["L"])
    rows, meaning = (size["B"], "(B, H, P, N)") if bounds is None else (len(bounds) - 1, "(S, H, P, N)")
    shape = (rows, size["H"], size["P"], size["N"])
    _check_state("initial_state", initial_state, x, shape, meaning)
    run = _implementation(resolve(backend, "ssd", x.device), chunk_size)
    dtype = _check.compute_dtype(x, delta, A, B, C, D, z, delta_bias, initial_state)
    state = x.new_zeros(shape, dtype=dtype) if initial_state is None else initial_state.to(dtype)
    with full_precision(x.device):
        u, delta, A, B, C = _prepare(x, delta, A, B, C, delta_bias, delta_softplus, dtype)
        if bounds is None:
            y, state = run(u, delta, A, B, C, state)
        else:
            y, state = run_packed(
                lambda t, start: run(t[0], t[1], A, t[2], t[3], start), bounds, (u, delta, B, C), state
            )
        y = _skip_and_gate(y, u, D, z).to(x.dtype)
    return (y, state) if return_final_state else y


def ssd_step(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    state: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
) -> tuple[Tensor, Tensor]:
    """One step of `ssd`, for decoding: the same arguments without their time axis.

    Args:
        x, z: (B, H, P).
        delta: (B, H).
        A, delta_bias: (H,).
        B, C: (B, G, N).
        state: h_{t-1} (B, H, P, N); it is not changed.
        D: (H,) or (H, P).
        delta_softplus: as in `ssd`.

    Returns:
        y (B, H, P) in the dtype of x, and the next state (B, H, P, N) as `ssd` returns it.

    Raises:
        ValueError: as `ssd`.
    """
    size = _check_arguments("B", x, delta, A, B, C, D, z, delta_bias)
    _check_state("state", state, x, (size["B"], size["H"], size["P"], size["N"]), "(B, H, P, N)")
    dtype = _check.compute_dtype(x, delta, A, B, C, D, z, delta_bias, state)
    with full_precision(x.device):
        u, delta, A, B, C = _prepare(x, delta, A, B, C, delta_bias, delta_softplus, dtype)
        y, state = reference.step(state.to(dtype), u, delta, A, B, C)
        return _skip_and_gate(y, u, D, z).to(x.dtype), state


def _implementation(backend: str, chunk_size: int) -> Callable[..., tuple[Tensor, Tensor]]:
    return reference.scan if backend == "reference" else functools.partial(chunked.scan, chunk_size=chunk_size)


def _check_arguments(
    axes: str, x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor,
    D: Tensor | None, z: Tensor | None, delta_bias: Tensor | None,
) -> dict[str, int]:  # fmt: skip
    """Check everything but the state; `axes` are the letters before the heads. Return the size of every letter."""
    _check.require_floating(x=x, delta=delta, A=A, B=B, C=C, D=D, z=z, delta_bias=delta_bias)
    _check.require_one_device(x=x, delta=delta, A=A, B=B, C=C, D=D, z=z, delta_bias=delta_bias)
    size = _check.bind_shapes(
        x=(x, f"{axes} H P"), delta=(delta, f"{axes} H"), A=(A, "H"), B=(B, f"{axes} G N"), C=(C, f"{axes} G N"),
        D=(D, "H | H P"), z=(z, f"{axes} H P"), delta_bias=(delta_bias, "H"),
    )  # fmt: skip
    _check.require_multiple("x: its number of heads", size["H"], "G", size["G"])
    return size


def _check_state(name: str, state: Tensor | None, x: Tensor, shape: tuple[int, ...], meaning: str) -> None:
    _check.require_floating(**{name: state})
    _check.require_one_device(x=x, **{name: state})
    if state is not None:
        _check.require_shape(name, state, shape, meaning)


def _prepare(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor,
    delta_bias: Tensor | None, delta_softplus: bool, dtype: torch.dtype,
) -> tuple[Tensor, ...]:  # fmt: skip
    """The arguments as the backends take them: in one dtype, and Δ itself."""
    x, delta, A, B, C = (tensor.to(dtype) for tensor in (x, delta, A, B, C))
    delta = delta if delta_bias is None else delta + delta_bias
    if delta_softplus:
        delta = F.softplus(delta)
    else:
        _check.require_nonnegative("delta" if delta_bias is None else "delta + delta_bias", delta)
    return x, delta, A, B, C


def _skip_and_gate(y: Tensor, x: Tensor, D: Tensor | None, z: Tensor | None) -> Tensor:
    if D is not None:
        y = y + (D if D.ndim == 2 else D[:, None]) * x
    return y if z is None else y * F.silu(z.to(y.dtype))
