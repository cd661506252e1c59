"""The selective scan of Mamba: a diagonal linear recurrence whose step size, input and output depend on the input."""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ssm_kit.ops import _check, _selective
from ssm_kit.ops._dispatch import resolve, step_on_gpu
from ssm_kit.ops._varlen import sequence_bounds, sequence_count
from ssm_kit.ops.selective_scan import chunked, reference

_SCANS = {"reference": reference.scan, "torch": chunked.scan}


def selective_scan(
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
    initial_state: Tensor | None = None,
    return_final_state: bool = False,
    cu_seqlens: Tensor | None = None,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """h_t = exp(Δ_t A) h_{t-1} + Δ_t x_t B_t, y_t = Re(C_t h_t) + D x_t, times SiLU(z_t) if z is given.

    Mamba, arXiv 2312.00752, algorithm 2, with B̄ = ΔB as its code has it. Every channel d has its own N states. Of
    complex states that stand for conjugate pairs, S4D (arXiv 2206.11893) takes 2 Re(C h): double C for that.

    Args:
        x: (B, L, D) input, real floating, no axis empty.
        delta: (B, L, D) step sizes Δ >= 0; any real numbers with `delta_softplus`.
        A: (D, N), real or complex; Re A <= 0 for a state that does not grow.
        B, C: (B, L, N), or (B, L, G, N) in G groups: channel d belongs to group d // (D / G). Real or complex.
        D: (D,) weight of the skip from x to y.
        z: (B, L, D) gate.
        delta_bias: (D,), added to delta first.
        delta_softplus: take Δ = ln(1 + exp(delta + delta_bias)).
        initial_state: h_0 (B, D, N), with `cu_seqlens` (S, D, N); None for zeros.
        return_final_state: return the state after the last step too.
        cu_seqlens: (S + 1,) int32 or int64, the bounds 0, ..., L of S sequences packed end to end; B must be 1.
        backend: "reference", "torch", "cuda" or "auto".

    Returns:
        y (B, L, D) in the dtype of x. With `return_final_state`, (y, state): state (B, D, N), or (S, D, N), in the
        common dtype of all arguments and at least float32; complex if A, B, C or initial_state is.

    Raises:
        ValueError: shapes that do not fit, dtypes that are not floating, several devices, a negative step size, bad
            `cu_seqlens`, an unknown backend. The kernels find negative steps and bad offsets on the GPU, which stops
            the program later, at its next synchronisation: checking them at once would cost one.
        NotImplementedError: backend="cuda" for what the kernels do not serve: float64, complex numbers, N above 64.
    """
    size = check_arguments("B L", x, delta, A, B, C, D, z, delta_bias)
    given = (x, delta, A, B, C, D, z, delta_bias)
    backend = resolve(backend, "selective_scan", x.device, lambda: obstacle(*given, initial_state))
    run = _by_kernels if backend == "cuda" else functools.partial(_by_torch, _SCANS[backend])
    y, state = run(size, *given, delta_softplus, initial_state, cu_seqlens)
    return (y, state) if return_final_state else y


def selective_scan_step(
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
    """One step of `selective_scan`, for decoding: the same arguments without their time axis.

    Args:
        x, delta, z: (B, D).
        A: (D, N).
        B, C: (B, N) or (B, G, N).
        state: h_{t-1} (B, D, N); it is not changed.
        D, delta_bias: (D,).
        delta_softplus: as in `selective_scan`.

    Returns:
        y (B, D) in the dtype of x, and the next state (B, D, N) as `selective_scan` returns it.

    Raises:
        ValueError: as `selective_scan`.
    """
    size = check_arguments("B", x, delta, A, B, C, D, z, delta_bias)
    _check_state("state", state, x, (size["B"], size["D"], size["N"]), "(B, D, N)")
    if step_on_gpu("selective_scan_step", obstacle, x, delta, A, B, C, D, z, delta_bias, state):
        from ssm_kit.ops.selective_scan import cuda

        _selective.require_steps_on_gpu(delta, delta_bias, delta_softplus)
        return cuda.step(x, delta, A, B, C, state, D, z, delta_bias, delta_softplus)
    return _selective.step(
        reference.step, _prepare, _skip_and_gate, x, delta, A, B, C,
        D=D, z=z, delta_bias=delta_bias, delta_softplus=delta_softplus, state=state,
    )  # fmt: skip


def obstacle(x: Tensor, delta: Tensor, A: Tensor, *others: Tensor | None) -> str | None:
    """Why the GPU kernels cannot serve a call with these tensors, or None."""
    from ssm_kit.ops.selective_scan import cuda

    return cuda.unsupported(x, delta, A, *others)


def _by_kernels(
    size: dict[str, int], x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor,
    D: Tensor | None, z: Tensor | None, delta_bias: Tensor | None, delta_softplus: bool,
    initial_state: Tensor | None, cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """y and the final state by the GPU's kernels. The host waits for nothing: the GPU checks Δ and cu_seqlens."""
    from ssm_kit.ops.selective_scan import cuda

    if cu_seqlens is not None:
        sequence_count(cu_seqlens, batch=size["B"], length=size["L"])
    check_initial(initial_state, x, size, cu_seqlens)
    _selective.require_steps_on_gpu(delta, delta_bias, delta_softplus)
    return cuda.scan(x, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state, cu_seqlens)


def _by_torch(
    scan: Callable[..., tuple[Tensor, Tensor]], size: dict[str, int],
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor,
    D: Tensor | None, z: Tensor | None, delta_bias: Tensor | None, delta_softplus: bool,
    initial_state: Tensor | None, cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """y and the final state by the scan of "reference" or "torch"."""
    bounds = None if cu_seqlens is None else sequence_bounds(cu_seqlens, batch=size["B"], length=size["L"])
    shape = check_initial(initial_state, x, size, cu_seqlens)
    return _selective.run(
        scan, _prepare, _skip_and_gate, bounds, shape, x, delta, A, B, C,
        D=D, z=z, delta_bias=delta_bias, delta_softplus=delta_softplus, initial_state=initial_state,
    )  # fmt: skip


def check_arguments(
    axes: str, x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor,
    D: Tensor | None, z: Tensor | None, delta_bias: Tensor | None,
) -> dict[str, int]:  # fmt: skip
    """Check everything but the state; `axes` are the letters before the channels. Return the size of every letter."""
    _check.require_floating(x=x, delta=delta, D=D, z=z, delta_bias=delta_bias)
    _check.require_floating_or_complex(A=A, B=B, C=C)
    _check.require_one_device(x=x, delta=delta, A=A, B=B, C=C, D=D, z=z, delta_bias=delta_bias)
    channels, states = f"{axes} D", f"{axes} N | {axes} G N"
    size = _check.bind_shapes(
        x=(x, channels), delta=(delta, channels), A=(A, "D N"), B=(B, states), C=(C, states),
        D=(D, "D"), z=(z, channels), delta_bias=(delta_bias, "D"),
    )  # fmt: skip
    _check.require_multiple("x: its number of channels", size["D"], "G", size.get("G", 1))
    return size


def check_initial(
    state: Tensor | None, x: Tensor, size: dict[str, int], cu_seqlens: Tensor | None
) -> tuple[int, int, int]:
    """Check the initial state; return its shape."""
    rows, meaning = (size["B"], "(B, D, N)") if cu_seqlens is None else (len(cu_seqlens) - 1, "(S, D, N)")
    shape = (rows, size["D"], size["N"])
    _check_state("initial_state", state, x, shape, meaning)
    return shape


def _check_state(name: str, state: Tensor | None, x: Tensor, shape: tuple[int, ...], meaning: str) -> None:
    _check.require_floating_or_complex(**{name: state})
    _check.require_one_device(x=x, **{name: state})
    if state is not None:
        _check.require_shape(name, state, shape, meaning)


def _prepare(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor,
    delta_bias: Tensor | None, delta_softplus: bool, dtype: torch.dtype,
) -> tuple[Tensor, ...]:  # fmt: skip
    """The arguments as the backends take them: one dtype, Δ itself, and a group axis in B and C, (..., G, N)."""
    x, delta = (tensor.to(dtype.to_real()) for tensor in (x, delta))
    delta = _selective.step_sizes(delta, delta_bias, delta_softplus)
    A, B, C = (tensor.to(dtype) for tensor in (A, B, C))
    B, C = (tensor if tensor.ndim > x.ndim else tensor.unsqueeze(-2) for tensor in (B, C))
    groups = max(B.shape[-2], C.shape[-2])
    return x, delta, A, *(tensor.expand(*tensor.shape[:-2], groups, -1) for tensor in (B, C))


def _skip_and_gate(y: Tensor, x: Tensor, D: Tensor | None, z: Tensor | None) -> Tensor:
    y = y if D is None else y + D * x
    return y if z is None else y * F.silu(z.to(y.dtype))
