"""SSD, the scan of Mamba-2: one decay per head and step, so that a sequence is worked off by matrix products."""

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ssm_kit.ops import _check, _selective
from ssm_kit.ops._dispatch import resolve, step_on_gpu
from ssm_kit.ops._varlen import sequence_bounds, sequence_count
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
        chunk_size: steps per chunk of "torch", >= 1. It changes speed and memory, not the result.
        initial_state: h_0 (B, H, P, N), with `cu_seqlens` (S, H, P, N); None for zeros.
        return_final_state: return the state after the last step too.
        cu_seqlens: (S + 1,) int32 or int64, the bounds 0, ..., L of S sequences packed end to end; B must be 1.
        backend: "reference", "torch", "cuda" or "auto".

    Returns:
        y (B, L, H, P) in the dtype of x. With `return_final_state`, (y, state): state (B, H, P, N), or (S, H, P, N),
        in the common dtype of all arguments and at least float32.

    Raises:
        ValueError: shapes that do not fit, dtypes that are not real floating, several devices, a negative step size,
            a chunk size below 1, bad `cu_seqlens`, an unknown backend. On a GPU, a negative step size and bad offsets
            stop the program later, at its next synchronisation, for checking them at once would cost one.
        NotImplementedError: backend="cuda" for what the kernels do not serve: float64, N above 256.
    """
    size = check_arguments("B L", x, delta, A, B, C, D, z, delta_bias)
    if not isinstance(chunk_size, int) or chunk_size < 1:
        raise ValueError(f"chunk_size must be an integer >= 1; got {chunk_size!r}")
    tensors = {"D": D, "z": z, "delta_bias": delta_bias, "initial_state": initial_state, "cu_seqlens": cu_seqlens}
    backend = resolve(backend, "ssd", x.device, lambda: obstacle(x, B, C, delta, A, D, z, delta_bias, initial_state))
    run = _kernels if backend == "cuda" else functools.partial(_portable, _implementation(backend, chunk_size))
    y, state = run(size, x, delta, A, B, C, delta_softplus=delta_softplus, **tensors)
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
    size = check_arguments("B", x, delta, A, B, C, D, z, delta_bias)
    _check_state("state", state, x, (size["B"], size["H"], size["P"], size["N"]), "(B, H, P, N)")
    if step_on_gpu("ssd_step", obstacle, x, B, C, delta, A, D, z, delta_bias, state):
        from ssm_kit.ops.ssd import cuda

        _selective.require_steps_on_gpu(delta, delta_bias, delta_softplus)
        return cuda.step(x, delta, A, B, C, state=state, D=D, z=z, delta_bias=delta_bias, delta_softplus=delta_softplus)
    return _selective.step(
        reference.step, _prepare, _skip_and_gate, x, delta, A, B, C,
        D=D, z=z, delta_bias=delta_bias, delta_softplus=delta_softplus, state=state,
    )  # fmt: skip


def obstacle(x: Tensor, B: Tensor, *others: Tensor | None) -> str | None:
    """Why the GPU kernels cannot serve a call with these tensors, or None."""
    from ssm_kit.ops.ssd import cuda

    return cuda.unsupported(x, B, *others)


def _kernels(
    size: dict[str, int], x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, *,
    initial_state: Tensor | None, cu_seqlens: Tensor | None, delta_bias: Tensor | None, delta_softplus: bool,
    **options: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """y and the final state by the GPU's kernels, without waiting for the GPU: it checks Δ and cu_seqlens itself."""
    from ssm_kit.ops.ssd import cuda

    if cu_seqlens is not None:
        sequence_count(cu_seqlens, batch=size["B"], length=size["L"])
        cu_seqlens = cu_seqlens.to(x.device)
    check_initial(initial_state, x, size, cu_seqlens)
    _selective.require_steps_on_gpu(delta, delta_bias, delta_softplus)
    return cuda.scan(
        x, delta, A, B, C, delta_bias=delta_bias, delta_softplus=delta_softplus, initial_state=initial_state,
        cu_seqlens=cu_seqlens, **options,
    )  # fmt: skip


def _portable(
    scan: Callable[..., tuple[Tensor, Tensor]], size: dict[str, int], x: Tensor, delta: Tensor, A: Tensor, B: Tensor,
    C: Tensor, *, initial_state: Tensor | None, cu_seqlens: Tensor | None, **options: Any,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """y and the final state by the scan of "reference" or "torch"."""
    bounds = None if cu_seqlens is None else sequence_bounds(cu_seqlens, batch=size["B"], length=size["L"])
    shape = check_initial(initial_state, x, size, cu_seqlens)
    options["initial_state"] = initial_state
    return _selective.run(scan, _prepare, _skip_and_gate, bounds, shape, x, delta, A, B, C, **options)


def check_initial(
    state: Tensor | None, x: Tensor, size: dict[str, int], cu_seqlens: Tensor | None
) -> tuple[int, int, int, int]:
    """Check the initial state; return its shape."""
    rows, meaning = (size["B"], "(B, H, P, N)") if cu_seqlens is None else (len(cu_seqlens) - 1, "(S, H, P, N)")
    shape = (rows, size["H"], size["P"], size["N"])
    _check_state("initial_state", state, x, shape, meaning)
    return shape


def _implementation(backend: str, chunk_size: int) -> Callable[..., tuple[Tensor, Tensor]]:
    return reference.scan if backend == "reference" else functools.partial(chunked.scan, chunk_size=chunk_size)


def check_arguments(
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
    return x, _selective.step_sizes(delta, delta_bias, delta_softplus), A, B, C


def _skip_and_gate(y: Tensor, x: Tensor, D: Tensor | None, z: Tensor | None) -> Tensor:
    if D is not None:
        y = y + (D if D.ndim == 2 else D[:, None]) * x
    return y if z is None else y * F.silu(z.to(y.dtype))
