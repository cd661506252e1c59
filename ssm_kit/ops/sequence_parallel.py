"""One sequence over several GPUs: every rank holds a piece of time, and only states travel between them.

A scan is linear in its state, so a rank need not wait for the one before it. Each first finds what its piece makes of a
zero state, and the decay that any other state undergoes on its way through. All ranks publish the two. From them, each
adds up the state that it really starts from,

    h_r = decay_{r-1} h_{r-1} + end_{r-1},

and runs its piece from there. Backward it is the same in reverse: each rank finds the gradient that its outputs alone
pass on to the state before the piece, all publish it, each adds up the gradient of the state that it ends in, and the
backward pass of its piece goes on from there. On a GPU kernels find the two boundary values alone, without outputs and
without the gradients of inputs; elsewhere a whole scan is run for them.

Rank r of the group holds the r-th piece; pieces may differ in length. x, delta, B, C and z are a rank's own. A, D,
delta_bias and initial_state are the same on all ranks, and each rank's gradient of those is its share: add them up over
the ranks, as data parallelism does with the gradients of weights.
"""

import functools
import importlib
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ssm_kit.ops._autograd import differentiable_once
from ssm_kit.ops._dispatch import resolve
from ssm_kit.ops._selective import total_step
from ssm_kit.ops.selective_scan import check_arguments as check_scan
from ssm_kit.ops.selective_scan import check_initial as check_scan_state
from ssm_kit.ops.selective_scan import obstacle as scan_obstacle
from ssm_kit.ops.selective_scan import selective_scan
from ssm_kit.ops.ssd import check_arguments as check_ssd
from ssm_kit.ops.ssd import check_initial as check_ssd_state
from ssm_kit.ops.ssd import obstacle as ssd_obstacle
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
    given = (x, delta, A, B, C, D, z, delta_bias, initial_state)
    check_scan_state(initial_state, x, check_scan("B L", *given[:-1]), None)
    backend = resolve(backend, "selective_scan", x.device, lambda: scan_obstacle(*given))
    operator = functools.partial(selective_scan, backend=backend)
    y, state = _in_pieces(operator, "selective_scan", backend, *given, delta_softplus, group)
    return (y, state) if return_final_state else y


def sequence_parallel_ssd(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, *,
    D: Tensor | None = None, z: Tensor | None = None, delta_bias: Tensor | None = None, delta_softplus: bool = False,
    chunk_size: int = 64, initial_state: Tensor | None = None, return_final_state: bool = False,
    group: dist.ProcessGroup | None = None, backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """`ssm_kit.ops.ssd` of a sequence that lies in pieces on the ranks of `group`.

    Arguments, results and errors are those of `sequence_parallel_selective_scan`, with the shapes of `ssd`.
    """
    given = (x, delta, A, B, C, D, z, delta_bias, initial_state)
    check_ssd_state(initial_state, x, check_ssd("B L", *given[:-1]), None)
    others = (D, z, delta_bias, initial_state)
    backend = resolve(backend, "ssd", x.device, lambda: ssd_obstacle(x, B, C, delta, A, *others))
    operator = functools.partial(ssd, chunk_size=chunk_size, backend=backend)
    y, state = _in_pieces(operator, "ssd", backend, *given, delta_softplus, group)
    return (y, state) if return_final_state else y


def _in_pieces(
    operator: Callable[..., Any], name: str, backend: str, x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor,
    D: Tensor | None, z: Tensor | None, delta_bias: Tensor | None, initial_state: Tensor | None, delta_softplus: bool,
    group: dist.ProcessGroup | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """This rank's y and last state, as differentiable as the operator."""
    module = importlib.import_module(f"ssm_kit.ops.{name}.cuda") if backend == "cuda" else _Whole(operator)
    steps = {"delta_bias": delta_bias, "delta_softplus": delta_softplus}
    with torch.no_grad():
        end, through = module.boundary(x, delta, A, B, **steps)
        ends, decays = _gather(end, group), _gather(through.to(end.dtype), group)
    start = _start(ends, decays, initial_state, dist.get_rank(group))
    y, state = operator(x, delta, A, B, C, D=D, z=z, **steps, initial_state=start, return_final_state=True)

    def start_gradient(dy: Tensor) -> Tensor:
        return module.start_gradient(dy, delta, A, C, z=z, **steps)

    result: tuple[Tensor, Tensor] = _Leave.apply(y, state, initial_state, decays, start_gradient, group)
    return result


def _start(ends: Tensor, decays: Tensor, initial_state: Tensor | None, rank: int) -> Tensor | None:
    """What all earlier ranks leave behind, faded by the ranks between: ends (R, ...), decays (R, ...)."""
    if rank == 0:
        return initial_state
    state = torch.zeros_like(ends[0]) if initial_state is None else initial_state.detach().to(ends.dtype)
    for earlier in range(rank):
        state = decays[earlier] * state + ends[earlier]
    return state


class _Leave(torch.autograd.Function):
    """y and the last state of a piece, unchanged; the gradient of the state gets what later ranks pass back."""

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, state: Tensor, initial: Tensor | None, decays: Tensor,
        start_gradient: Callable[[Tensor], Tensor], group: dist.ProcessGroup | None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        ctx.start_gradient, ctx.group, ctx.rank = start_gradient, group, dist.get_rank(group)
        ctx.save_for_backward(initial, decays)
        return y.detach(), state.detach()  # not as views, which nobody may then write into

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, dy: Tensor, dstate: Tensor) -> tuple[Tensor | None, ...]:
        initial, decays = ctx.saved_tensors
        decays = decays.conj()
        own = ctx.start_gradient(dy) + decays[ctx.rank] * dstate
        starts, passed = _gather(own, ctx.group), torch.zeros_like(own)
        for later in reversed(range(ctx.rank + 1, len(starts))):
            passed = starts[later] + decays[later] * passed
        # The first rank's scan starts from the initial state and has its gradient; the others share nothing of it.
        dinitial = None if initial is None or ctx.rank == 0 else torch.zeros_like(initial)
        return dy, dstate + passed.to(dstate.dtype), dinitial, None, None, None


class _Whole:
    """The boundary values by whole scans of the operator, for backends that have no kernels for them."""

    def __init__(self, operator: Callable[..., Any]) -> None:
        self.operator = operator

    def boundary(self, x: Tensor, delta: Tensor, A: Tensor, B: Tensor, **steps: Any) -> tuple[Tensor, Tensor]:
        """What the piece makes of a zero state, and its decay of any other."""
        end = self.operator(x, delta, A, B, B, **steps, return_final_state=True)[1]
        total = total_step(delta, steps["delta_bias"], steps["delta_softplus"])
        per_head = A.ndim == 1  # as in `ssd`
        return end, torch.exp(A * total)[..., None, None] if per_head else torch.exp(A * total[..., None])

    def start_gradient(self, dy: Tensor, delta: Tensor, A: Tensor, C: Tensor, **options: Any) -> Tensor:
        """The gradient of the state before the piece, given that of its outputs alone."""
        with torch.enable_grad():
            shape = (*dy.shape[:1], *dy.shape[2:], C.shape[-1])
            start = torch.zeros(shape, dtype=torch.result_type(dy, A), device=dy.device, requires_grad=True)
            y = self.operator(torch.zeros_like(dy), delta, A, C, C, **options, initial_state=start)
        return torch.autograd.grad(y, start, dy)[0]


def _gather(tensor: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """Every rank's tensor on every rank, (R, ...)."""
    parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, tensor.contiguous(), group=group)
    return torch.stack(parts)
