"""SSD's kernels launched in their order: forward, backward, one step. No autograd here: see `cuda`."""

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ssm_kit.ops._gpu import processors, rows
from ssm_kit.ops.ssd import _backward, _forward, _step
from ssm_kit.ops.ssd._plan import Plan, ceil, plan_of, power, with_copies

HEADS = 16
"""Heads that one program of `prepare` and `finish` takes."""


class Inputs(NamedTuple):
    """The arguments of `ssd`, in the order of its custom operators; x, B and C in one dtype."""

    x: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None
    initial_state: Tensor | None
    cu_seqlens: Tensor | None

    def laid_out(self) -> "Inputs":
        """The same values as the kernels can read them; copied only where they must be."""
        timed = {"x": self.x, "delta": self.delta, "B": self.B, "C": self.C, "z": self.z}
        dense = {"A": self.A, "D": self.D, "delta_bias": self.delta_bias, "initial_state": self.initial_state}
        changes = {name: rows(tensor) for name, tensor in timed.items() if tensor is not None}
        changes |= {name: tensor.contiguous() for name, tensor in dense.items() if tensor is not None}
        return self._replace(**changes)

    @property
    def skip(self) -> int:
        """How many D a head has: 0 for none, 1, or P."""
        return 0 if self.D is None else self.D.numel() // self.D.shape[0]


class Chunks(NamedTuple):
    """What the kernels know of each chunk and head, (slots, H, Q), see `_forward.prepare`."""

    steps: Tensor
    totals: Tensor
    sources: Tensor
    sequence_of: Tensor | None  # (slots,), where sequences are packed


class States(NamedTuple):
    """A state for each chunk and slice, and the units of half-precision ones, see `_forward.walk`."""

    values: Tensor
    units: Tensor | None

    @classmethod
    def empty(cls, plan: Plan, like: Tensor) -> "States":
        shape = (plan.slots, plan.slices, plan.block_p, plan.block_n)
        if plan.exact:
            return cls(_empty(like, shape), None)
        return cls(_empty(like, shape, torch.float16), _empty(like, (plan.slots, plan.slices, 2)))


def forward(inputs: Inputs, softplus: bool, keep_ungated: bool) -> tuple[Tensor, Tensor, Tensor]:
    """y, y before the gate (empty unless it is kept) and the final state (sequences, H, P, N)."""
    t = inputs.laid_out()
    plan = with_copies(plan_of(t.x, t.B, t.cu_seqlens), t.x, t.B, t.C, t.z)
    chunks = _prepare(plan, t, softplus)
    y = _empty(t.x, t.x.shape, t.x.dtype)
    ungated = torch.empty_like(y) if keep_ungated else None
    final = _empty(y, (plan.sequences, plan.heads, plan.P, plan.N))
    cut = segments, pieces = plan.cut(processors(y.device))
    ends, passed = _ends(plan, chunks, t.x, None, States(t.B, None), t.cu_seqlens, cut, reverse=False)
    by_p, by_n = partial(plan.source, columns=plan.block_p), partial(plan.source, columns=plan.block_n)
    _forward.forward[(plan.sequences * plan.slices, segments)](
        by_p(t.x), by_n(t.B), by_n(t.C), t.D, by_p(t.z), chunks.totals, chunks.sources, t.initial_state, ends, passed,
        t.cu_seqlens, by_p(y), by_p(ungated), final, plan.length, plan.heads, plan.heads // plan.groups, pieces,
        t.x.stride(1), t.B.stride(1), t.C.stride(1), 0 if t.z is None else t.z.stride(1), **plan.shapes(), SKIP=t.skip,
        **plan.launch("forward"),
    )  # fmt: skip
    return y, y.new_empty(0) if ungated is None else ungated, final


def backward(inputs: Inputs, softplus: bool, dy: Tensor, dfinal: Tensor, ungated: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients of the first nine inputs, those of parameters and states in float32."""
    t = inputs.laid_out()
    rest = dz = None
    if t.z is not None:
        dy, rest, dz = _gate(dy.contiguous(), t.z.contiguous(), ungated)
    dy = rows(dy)
    plan = with_copies(plan_of(t.x, t.B, t.cu_seqlens), t.x, t.B, t.C, dy)
    chunks = _prepare(plan, t, softplus)
    states, dstates = States.empty(plan, t.x), States.empty(plan, t.x)
    dinitial = _empty(t.x, (plan.sequences, plan.heads, plan.P, plan.N))
    B, C = _scaled(plan, chunks, t, t.B), _scaled(plan, chunks, t, t.C)
    _walk(plan, chunks, t.x, None, B, t.cu_seqlens, t.initial_state, states, None, reverse=False)
    _walk(plan, chunks, dy, rest, C, t.cu_seqlens, dfinal.contiguous(), dstates, dinitial, reverse=True)
    dx, ddelta, dA, dB, dC, dD = _chunks(plan, chunks, t, softplus, dy, rest, B, C, states, dstates)
    return dx, ddelta, dA, dB, dC, dD, dz, ddelta.sum((0, 1)), dinitial


def end(inputs: Inputs, softplus: bool) -> Tensor:
    """The final state of `forward` alone."""
    return _left(inputs, softplus, reverse=False)


def start_gradient(inputs: Inputs, softplus: bool) -> Tensor:
    """The gradient of the initial state in `backward` alone, with dy before the gate in the place of x and C in B's."""
    return _left(inputs, softplus, reverse=True)


def _left(inputs: Inputs, softplus: bool, *, reverse: bool) -> Tensor:
    """What leaves the sequences at the end of a walk that keeps nothing else."""
    t = inputs.laid_out()
    plan = with_copies(plan_of(t.x, t.B, t.cu_seqlens), t.x, t.B)
    chunks = _prepare(plan, t, softplus)
    left = _empty(t.x, (plan.sequences, plan.heads, plan.P, plan.N))
    B = _scaled(plan, chunks, t, t.B) if reverse else States(t.B, None)
    _walk(plan, chunks, t.x, None, B, t.cu_seqlens, t.initial_state, None, left, reverse=reverse)
    return left


def step(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor, D: Tensor | None, z: Tensor | None,
    delta_bias: Tensor | None, softplus: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """y (B, H, P) and the next state (B, H, P, N) of one step, shapes as in `ssd_step`."""
    batch, heads, P, N = state.shape
    x, delta, B, C = (tensor if tensor[0].is_contiguous() else tensor.contiguous() for tensor in (x, delta, B, C))
    z = z if z is None or z[0].is_contiguous() else z.contiguous()
    D, delta_bias = (tensor if tensor is None else tensor.contiguous() for tensor in (D, delta_bias))
    y, after = _empty(x, x.shape, x.dtype), _empty(x, state.shape)
    block_n = power(N)
    block_p = min(power(P), max(1, 4096 // block_n))
    _step.step[(batch * heads, ceil(P, block_p))](
        state.contiguous(), x, delta, A.contiguous(), B, C, D, z, delta_bias, y, after, heads, heads // B.shape[1],
        x.stride(0), delta.stride(0), B.stride(0), C.stride(0), 0 if z is None else z.stride(0), P=P, N=N,
        BLOCK_P=block_p, BLOCK_N=block_n, SKIP=0 if D is None else D.numel() // heads, SOFTPLUS=softplus, num_warps=4,
    )  # fmt: skip
    return y, after


def _empty(like: Tensor, shape: Any, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=like.device)


def _prepare(plan: Plan, t: Inputs, softplus: bool) -> Chunks:
    shape = (plan.slots, plan.heads, plan.chunk)
    wide = torch.float64 if plan.exact else torch.float32
    sequence_of = None if t.cu_seqlens is None else _sequence_of(plan, t.cu_seqlens)
    chunks = Chunks(_empty(t.x, shape), _empty(t.x, shape, wide), _empty(t.x, shape, wide), sequence_of)
    _forward.prepare[(plan.slots, ceil(plan.heads, HEADS))](
        t.delta, t.A, t.delta_bias, t.cu_seqlens, sequence_of, *chunks[:3], plan.length, plan.heads, t.delta.stride(1),
        Q=plan.chunk, HEADS=HEADS, SOFTPLUS=softplus, PACKED=plan.packed, EXACT=plan.exact, num_warps=4,
    )  # fmt: skip
    return chunks


def _sequence_of(plan: Plan, bounds: Tensor) -> Tensor:
    """The sequence that each slot belongs to, found on the GPU."""
    firsts = bounds[:-1] // plan.chunk + torch.arange(plan.sequences, device=bounds.device)
    slots = torch.arange(plan.slots, device=bounds.device)
    return (torch.searchsorted(firsts, slots, right=True) - 1).to(torch.int32)


def _ends(
    plan: Plan, chunks: Chunks, x: Tensor, rest: Tensor | None, B: States, bounds: Tensor | None,
    cut: tuple[int, int], *, reverse: bool,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """What each piece ends in when it starts from zero, and its decay; None where there is only one segment."""
    segments, pieces = cut
    if segments == 1:
        return None, None
    parts = (plan.sequences * plan.slices, segments * pieces)
    ends, passed = _empty(x, (*parts, plan.block_p, plan.block_n)), _empty(x, parts)
    tensors = (None, None, None, None, None, None, ends, passed)
    _launch_walk(plan, chunks, x, rest, B, bounds, segments * pieces, pieces, *tensors, reverse=reverse)
    return ends, passed


def _walk(
    plan: Plan, chunks: Chunks, x: Tensor, rest: Tensor | None, B: States, bounds: Tensor | None,
    arriving: Tensor | None, states: States | None, leaving: Tensor | None, *, reverse: bool,
) -> None:  # fmt: skip
    """Fill `states` with what reaches every chunk, and `leaving` with what leaves each sequence; either may be None."""
    cut = plan.cut(processors(x.device))
    ends, passed = _ends(plan, chunks, x, rest, B, bounds, cut, reverse=reverse)
    kept = (None, None) if states is None else (plan.states(states.values, plan.block_n), states.units)
    tensors = (arriving, ends, passed, *kept, leaving, None, None)
    _launch_walk(plan, chunks, x, rest, B, bounds, *cut, *tensors, reverse=reverse)


def _launch_walk(
    plan: Plan, chunks: Chunks, x: Tensor, rest: Tensor | None, B: States, bounds: Tensor | None, programs: int,
    pieces: int, *tensors: Any, reverse: bool,
) -> None:  # fmt: skip
    """Programs to a head of a sequence: one for each segment, in the first pass one for each of their `pieces`."""
    _forward.walk[(plan.sequences * plan.slices, programs)](
        plan.source(x, plan.block_p), plan.source(rest, plan.block_p), plan.source(B.values, plan.block_n), B.units,
        chunks.totals, chunks.sources, *tensors, bounds, plan.length, plan.heads, plan.heads // plan.groups, pieces,
        x.stride(1), B.values.stride(1), **plan.shapes(), STORED=plan.stored, REVERSE=reverse, **plan.launch("walk"),
    )  # fmt: skip


def _gate(dy: Tensor, z: Tensor, ungated: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    """The gradient of y before the gate; what rounding took from it, where it took something; that of z."""
    dungated, dz = torch.empty_like(ungated), torch.empty_like(z)
    rest = None if ungated.dtype == torch.float32 else torch.empty_like(ungated)
    block = 4096
    _backward.gate[(ceil(dy.numel(), block),)](dy, z, ungated, dungated, rest, dz, dy.numel(), BLOCK=block, num_warps=8)
    return dungated, rest, dz


class Logs(NamedTuple):
    """What `across` and `inside` find out about the gradients of Δ and of the log decays, for `finish`."""

    dsince: Tensor
    dpassed: Tensor
    inside: Tensor
    """(slots, slices, Q, 4). For each step: the gradient of Δ through u = Δx; of the log decays between steps, with +
    at the step that reads and with - at the step that writes; of the log decay until the chunk's end; x · dy."""

    @classmethod
    def empty(cls, plan: Plan, chunks: Chunks) -> "Logs":
        rows, tiles, steps = (plan.slots, plan.slices), (plan.block_n // plan.columns,), (plan.chunk,)
        empty = partial(_empty, chunks.steps)
        return cls(empty(rows + tiles + steps), empty(rows + tiles), empty((*rows, *steps, 4), chunks.totals.dtype))


def _chunks(
    plan: Plan, chunks: Chunks, t: Inputs, softplus: bool, dy: Tensor, rest: Tensor | None, B: States, C: States,
    states: States, dstates: States,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None]:  # fmt: skip
    """The gradients of x, delta, A, B, C and D, given the states and their gradients at every chunk's bounds."""
    logs = Logs.empty(plan, chunks)
    dx, dB, dC, dD = _launch_chunks(plan, chunks, t, dy, rest, B, C, states, dstates, logs)
    ddelta = _empty(dy, t.delta.shape)
    dA = dy.new_zeros((plan.slots, plan.heads), dtype=torch.float32)  # zeros for slots that no sequence uses
    dD = _empty(dy, dA.shape) if t.skip == 1 else dD
    _backward.finish[(plan.slots, ceil(plan.heads, HEADS))](
        t.A, chunks.steps, *logs, t.cu_seqlens, chunks.sequence_of, ddelta, dA, dD if t.skip == 1 else None,
        plan.length, plan.heads, Q=plan.chunk, SLICES=plan.slices_of_head, TILES=plan.block_n // plan.columns,
        HEADS=HEADS, SOFTPLUS=softplus, PACKED=plan.packed, num_warps=4,
    )  # fmt: skip
    dB, dC = (parts.sum(0) if len(parts) > 1 else parts[0] for parts in (dB, dC))
    return dx, ddelta, dA.sum(0), dB, dC, None if dD is None else dD.sum(0)


def _scaled(plan: Plan, chunks: Chunks, t: Inputs, source: Tensor) -> States:
    """B or C in the type of states, (B, L, G, N), and the units of its chunks (slots, G)."""
    if plan.exact:
        return States(source.contiguous(), None)
    target = States(_empty(source, source.shape, torch.float16), _empty(source, (plan.slots, plan.groups)))
    _backward.scaled[(plan.slots, plan.groups)](
        source, *target, t.cu_seqlens, chunks.sequence_of, plan.length, source.stride(1), N=plan.N,
        BLOCK_N=plan.block_n, Q=plan.chunk, PACKED=plan.packed, num_warps=4,
    )  # fmt: skip
    return target


def _launch_chunks(
    plan: Plan, chunks: Chunks, t: Inputs, dy: Tensor, rest: Tensor | None, B: States, C: States, states: States,
    dstates: States, logs: Logs,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:  # fmt: skip
    """dx; dB and dC of every part of a group (parts, B, L, G, N); dD by chunks (slots, H, P) for one D a row."""
    per_group = plan.heads // plan.groups
    parts = min(per_group, ceil(4 * processors(dy.device), plan.slots * plan.groups))
    dx, dB, dC = _empty(dy, t.x.shape, t.x.dtype), _empty(dy, (parts, *t.B.shape)), _empty(dy, (parts, *t.B.shape))
    dD = _empty(dy, (plan.slots, plan.heads, plan.P)) if t.D is not None and t.skip != 1 else None
    where, sizes = (t.cu_seqlens, chunks.sequence_of), (plan.length, plan.tokens, plan.heads, per_group)
    by_p, by_n = partial(plan.source, columns=plan.block_p), partial(plan.source, columns=plan.block_n)
    options = plan.shapes() | {"STORED": plan.stored}
    _backward.across[(plan.slots * (plan.block_n // plan.columns), plan.groups, parts)](
        by_p(t.x), plan.source(C.values, plan.columns), by_p(dy), by_p(rest), chunks.steps, chunks.totals,
        plan.states(states.values, plan.columns), plan.states(dstates.values, plan.columns), C.units, states.units,
        dstates.units, *where, dB, dC, logs.dsince, logs.dpassed, *sizes, t.x.stride(1), C.values.stride(1),
        dy.stride(1), COLUMNS=plan.columns, **options, **plan.launch("across"),
    )  # fmt: skip
    _backward.inside[(plan.slots, plan.groups, parts)](
        by_p(t.x), by_n(t.B), by_n(B.values), by_n(t.C), t.D, by_p(dy), by_p(rest), chunks.steps, chunks.totals,
        plan.states(dstates.values, plan.block_n), B.units, dstates.units, *where, by_p(dx), dB, dC, dD, logs.inside,
        *sizes, t.x.stride(1), t.B.stride(1), t.C.stride(1), dy.stride(1), SKIP=t.skip, **options,
        **plan.launch("inside" if rest is None else "inside, gated"),
    )  # fmt: skip
    return dx, dB, dC, dD
