"""What `selective_scan` and `ssd` have in common: step sizes from the input, a skip, a gate, packed sequences.

Their public functions check shapes, and then either call their kernels or come here, with what differs between them:
`scan` (the definition or its chunked form), `prepare` (dtypes and groups) and `finish` (skip and gate).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ssm_kit.ops import _check
from ssm_kit.ops._dispatch import full_precision
from ssm_kit.ops._varlen import run_packed


def step_sizes(delta: Tensor, bias: Tensor | None, softplus: bool) -> Tensor:
    """Δ: what was given, plus the bias, through softplus if asked. Raises ValueError if it is negative without."""
    step = _unchecked(delta, bias, softplus)
    if not softplus:
        _check.require_nonnegative("delta" if bias is None else "delta + delta_bias", step)
    return step


def total_step(delta: Tensor, bias: Tensor | None, softplus: bool) -> Tensor:
    """Σ Δ over time, without the time axis, in at least single precision; unchecked."""
    return _unchecked(delta.to(torch.promote_types(delta.dtype, torch.float32)), bias, softplus).sum(1)


def _unchecked(delta: Tensor, bias: Tensor | None, softplus: bool) -> Tensor:
    delta = delta if bias is None else delta + bias
    return F.softplus(delta) if softplus else delta


def require_steps_on_gpu(delta: Tensor, bias: Tensor | None, softplus: bool) -> None:
    """Check Δ as `step_sizes` does, but on the GPU, which then stops the program at the next synchronisation."""
    if not softplus:
        step = _unchecked(delta.detach(), None if bias is None else bias.detach(), softplus)
        torch._assert_async(~(step < 0).any(), "delta must be >= 0, or pass delta_softplus=True")


def run(
    scan: Callable[..., tuple[Tensor, Tensor]],
    prepare: Callable[..., tuple[Tensor, ...]],
    finish: Callable[..., Tensor],
    bounds: list[int] | None,
    shape: tuple[int, ...],
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, *,
    D: Tensor | None, z: Tensor | None, delta_bias: Tensor | None, delta_softplus: bool, initial_state: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """y and the final state by "reference" or "torch"; `shape` is the state's, `bounds` those of packed sequences."""
    dtype = _check.compute_dtype(x, delta, A, B, C, D, z, delta_bias, initial_state)
    state = x.new_zeros(shape, dtype=dtype) if initial_state is None else initial_state.to(dtype)
    with full_precision(x.device):
        u, delta, A, B, C = prepare(x, delta, A, B, C, delta_bias, delta_softplus, dtype)
        if bounds is None:
            y, state = scan(u, delta, A, B, C, state)
        else:
            y, state = run_packed(
                lambda t, start: scan(t[0], t[1], A, t[2], t[3], start), bounds, (u, delta, B, C), state
            )
        return finish(y, u, D, z).to(x.dtype), state


def step(
    advance: Callable[..., tuple[Tensor, Tensor]],
    prepare: Callable[..., tuple[Tensor, ...]],
    finish: Callable[..., Tensor],
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, *,
    D: Tensor | None, z: Tensor | None, delta_bias: Tensor | None, delta_softplus: bool, state: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """y and the next state, by `advance`, the definition of one step."""
    dtype = _check.compute_dtype(x, delta, A, B, C, D, z, delta_bias, state)
    with full_precision(x.device):
        u, delta, A, B, C = prepare(x, delta, A, B, C, delta_bias, delta_softplus, dtype)
        y, state = advance(state.to(dtype), u, delta, A, B, C)
        return finish(y, u, D, z).to(x.dtype), state
