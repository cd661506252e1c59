"""One sequence over several GPUs: every rank holds a piece of time, and only states travel between them.

A scan is linear in its state, so a rank need not wait for the one before it. Each runs its piece from a zero state at
once, and publishes two things: the state that it ends in, and the decay that a state undergoes on its way through.
From those, every rank adds up the state that it really starts from,

    h_r = decay_{r-1} h_{r-1} + end_{r-1},

and runs its piece again from there. That is two scans of L / R steps on each of R ranks instead of one of L steps, and
one exchange of R states, whatever L is. The backward pass is autograd's through the same two scans: the gradients of
the states come back by one exchange too.

Rank r of the group holds the r-th piece; pieces may differ in length. x, delta, B, C and z are a rank's own. A, D,
delta_bias and initial_state are the same on all ranks, and each rank's gradient of those is its share: add them up over
the ranks, as data parallelism does with the gradients of weights.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from ssm_kit.ops._autograd import differentiable_once
from ssm_kit.ops.selective_scan import selective_scan
from ssm_kit.ops.ssd import ssd


def sequence_parallel_selective_scan(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, *,
    D: Tensor | None = None, z: Tensor | None = None, delta_bias: Tensor | None = None, delta_softplus: bool = False,
    initial_state: Tensor | None = None, return_final_state: bool = False,
    group: dist.ProcessGroup | None = None, backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """`ssm_kit.ops.selective_scan` of a sequence that lies in pieces on the ranks of `group`.

    Args:
        x, delta, B, C, z: this rank's piece of time, shaped as in `selective_scan`.
        A, D, delta_bias, initial_state: the same on all ranks; initial_state is the one before the whole sequence.
        delta_softplus, backend: as in `selective_scan`.
        return_final_state: return the state at the end of this rank's piece too.
        group: the ranks, in the order of their pieces; None for all.

    Returns:
        this rank's piece of y, and with `return_final_state` its last state (B, D, N).

    Raises:
        ValueError: as `selective_scan`, on the rank whose arguments do not fit.
        RuntimeError: torch.distributed is not initialised.
    """
    step: dict[str, Any] = {"delta_bias": delta_bias, "delta_softplus": delta_softplus, "backend": backend}
    end = selective_scan(x, delta, A, B, C, **step, return_final_state=True)[1]
    through = torch.exp(A * _total(delta, delta_bias, delta_softplus, end.dtype)[..., None])  # (B, D, N)
    start = _inherit(end, through, initial_state, group)
    options: dict[str, Any] = {"D": D, "z": z, "initial_state": start, "return_final_state": return_final_state}
    return selective_scan(x, delta, A, B, C, **step, **options)


def sequence_parallel_ssd(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, *,
    D: Tensor | None = None, z: Tensor | None = None, delta_bias: Tensor | None = None, delta_softplus: bool = False,
    chunk_size: int = 64, initial_state: Tensor | None = None, return_final_state: bool = False,
    group: dist.ProcessGroup | None = None, backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """`ssm_kit.ops.ssd` of a sequence that lies in pieces on the ranks of `group`.

    Arguments, results and errors are those of `sequence_parallel_selective_scan`, with the shapes of `ssd`.
    """
    step: dict[str, Any] = {
        "delta_bias": delta_bias,
        "delta_softplus": delta_softplus,
        "chunk_size": chunk_size,
        "backend": backend,
    }
    end = ssd(x, delta, A, B, C, **step, return_final_state=True)[1]
    through = torch.exp(A * _total(delta, delta_bias, delta_softplus, end.dtype))[..., None, None]  # (B, H, 1, 1)
    start = _inherit(end, through, initial_state, group)
    options: dict[str, Any] = {"D": D, "z": z, "initial_state": start, "return_final_state": return_final_state}
    return ssd(x, delta, A, B, C, **step, **options)


def _total(delta: Tensor, bias: Tensor | None, softplus: bool, dtype: torch.dtype) -> Tensor:
    """Σ Δ over this rank's piece of time, without the time axis."""
    delta = delta.to(dtype.to_real())
    delta = delta if bias is None else delta + bias
    return (F.softplus(delta) if softplus else delta).sum(1)


def _inherit(end: Tensor, through: Tensor, initial_state: Tensor | None, group: dist.ProcessGroup | None) -> Tensor:
    """The state that this rank starts from."""
    initial_state = torch.zeros_like(end) if initial_state is None else initial_state.to(end.dtype)
    state: Tensor = _Inherit.apply(end, through.to(end.dtype), initial_state, group)
    return state


class _Inherit(torch.autograd.Function):
    """`_add_up` of all ranks' tensors. One function with its own backward, so that every rank takes part in the
    exchange of gradients, the first too, which inherits nothing."""

    @staticmethod
    def forward(ctx: Any, end: Tensor, through: Tensor, initial: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        ctx.group, ctx.rank = group, dist.get_rank(group)
        ends, decays = _gather(end, group), _gather(through, group)
        ctx.save_for_backward(ends, decays, initial)
        return _add_up(ends, decays, initial, ctx.rank)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        ends, decays, initial = (tensor.detach().requires_grad_() for tensor in ctx.saved_tensors)
        with torch.enable_grad():
            state = _add_up(ends, decays, initial, ctx.rank)
        shares = torch.autograd.grad(state, (ends, decays, initial), gradient, materialize_grads=True)
        for share in shares[:2]:
            dist.all_reduce(share, group=ctx.group)
        return shares[0][ctx.rank], shares[1][ctx.rank], shares[2], None


def _add_up(ends: Tensor, decays: Tensor, state: Tensor, rank: int) -> Tensor:
    """What all earlier ranks leave behind, faded by the ranks between: ends (R, ...), decays (R, ...)."""
    state = state.clone()
    for earlier in range(rank):
        state = decays[earlier] * state + ends[earlier]
    return state


def _gather(tensor: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """Every rank's tensor on every rank, (R, ...)."""
    parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, tensor.contiguous(), group=group)
    return torch.stack(parts)
