"""SSD on a GPU: Triton kernels, forward, backward and decoding step."""

import functools
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from ssm_kit.ops._autograd import differentiable_once
from ssm_kit.ops._gpu import unsupported_dtype
from ssm_kit.ops.ssd import _backward, _forward, _step
from ssm_kit.ops.ssd._tiles import COPIED, FULL, MASKED

LAUNCHES = {
    "forward": {"STAGES": 2, "num_warps": 4},
    "walk": {"STAGES": 3, "num_warps": 4},
    "across": {"STAGES": 2, "num_warps": 8},
    "inside": {"STAGES": 2, "num_warps": 4},
}
"""Depth of the loads' pipeline and warps of each kernel: the fastest of those tried on an H200."""
MAX_STATES = 256
"""The largest N: a tile of dB and one of dC, Q × N each, must fit the registers."""


def unsupported(x: Tensor, B: Tensor, *others: Tensor | None) -> str | None:
    """Why the kernels cannot serve a call with these tensors, or None."""
    if B.shape[-1] > MAX_STATES:
        return f"the kernels hold at most {MAX_STATES} columns of a state; got N = {B.shape[-1]}"
    return unsupported_dtype(x, B, *others)


class _Plan(NamedTuple):
    """Sizes, and how they are cut."""

    sequences: int
    length: int  # of every sequence, or of all together where they are packed
    tokens: int
    heads: int
    P: int
    groups: int
    N: int
    block_p: int
    block_n: int
    chunk: int
    exact: bool  # float32 inputs
    small: bool
    packed: bool
    mode: int  # of tiles of the caller's tensors, see `_tiles.tile`
    stored: int  # of tiles of states
    precision: str

    @property
    def slices(self) -> int:
        return self.heads * self.slices_of_head

    @property
    def slices_of_head(self) -> int:
        return triton.cdiv(self.P, self.block_p)

    @property
    def slots(self) -> int:
        """Chunks of all sequences; of packed ones as many as there can be."""
        if self.packed:
            return self.tokens // self.chunk + self.sequences
        return self.sequences * triton.cdiv(self.length, self.chunk)

    def segments(self, processors: int) -> int:
        """Parts of a sequence that run at once, for two programs a multiprocessor; of 8 chunks at least."""
        wanted = 2 * processors // (self.sequences * self.slices)
        return max(1, min(wanted, 16, self.length // (8 * self.chunk)))

    def source(self, tensor: Tensor | None, columns: int) -> Any:
        """What the kernels take for a tensor of the caller's, (B, L, ...), by tiles of `columns` columns."""
        if tensor is None or self.mode != COPIED.value:
            return tensor
        width = tensor[0, 0].numel()
        return TensorDescriptor(tensor, [self.tokens, width], [tensor.stride(1), 1], [self.chunk, columns])

    def states(self, tensor: Tensor | None) -> Any:
        """What the kernels take for the states of all slots."""
        if tensor is None or self.stored != COPIED.value:
            return tensor
        block = [self.block_p, self.block_n]
        return TensorDescriptor(
            tensor, [self.slots * self.slices * self.block_p, self.block_n], [self.block_n, 1], block
        )

    def launch(self, kernel: str) -> dict[str, int]:
        # float32 tiles are twice as large: without a pipeline they fit the shared memory of small GPUs.
        return {"STAGES": 1, "num_warps": 4} if self.small or self.exact else LAUNCHES[kernel]

    def shapes(self) -> dict[str, Any]:
        return {
            "P": self.P, "N": self.N, "BLOCK_P": self.block_p, "BLOCK_N": self.block_n, "Q": self.chunk,
            "SLICES": self.slices_of_head, "PACKED": self.packed, "MODE": self.mode, "PRECISION": self.precision,
        }  # fmt: skip


def _plan(x: Tensor, B: Tensor, cu_seqlens: Tensor | None) -> _Plan:
    batch, length, heads, P = x.shape
    groups, N = B.shape[2:]
    # Before Ampere, Triton has no matrix products in hardware: small tiles, or they do not fit the registers.
    small = _capability(x.device) < 8
    block_n = max(16, triton.next_power_of_2(N))
    block_p = min(16 if small else 64 if block_n <= 128 else 32, max(16, triton.next_power_of_2(P)))
    chunk = 16 if small else 64 if block_n <= 128 else 32
    full = cu_seqlens is None and length % chunk == 0 and P % block_p == 0 and block_n == N
    return _Plan(
        batch if cu_seqlens is None else len(cu_seqlens) - 1, length, batch * length, heads, P, groups, N, block_p,
        block_n, chunk, x.dtype == torch.float32, small, cu_seqlens is not None, FULL.value if full else MASKED.value,
        COPIED.value if _has_copy_engine(x) else FULL.value, "ieee" if small or not x.is_cuda else "bf16x6",
    )  # fmt: skip


def _with_mode(plan: _Plan, *tensors: Tensor | None) -> _Plan:
    """The plan, with bulk copies where the GPU has them and all tensors, as `_rows` returns them, are aligned."""
    aligned = all(t.data_ptr() % 16 == 0 and t.stride(1) * t.element_size() % 16 == 0 for t in tensors if t is not None)
    if plan.stored == COPIED.value and plan.mode == FULL.value and aligned and plan.tokens < 2**31:
        return plan._replace(mode=COPIED.value)
    return plan


def _has_copy_engine(x: Tensor) -> bool:
    return _capability(x.device) >= 9


@functools.cache
def _capability(device: torch.device) -> int:
    """The major one of the GPU; the interpreter, which has no GPU, is treated like Ampere."""
    return torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else 8


@functools.cache
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def _rows(tensor: Tensor) -> Tensor:
    """(B, L, ...), copied unless one stride leads from each step to the next, also across rows of the batch."""
    even = tensor.shape[0] == 1 or tensor.stride(0) == tensor.shape[1] * tensor.stride(1)
    return tensor if even and tensor.stride(1) > 0 and tensor[0, 0].is_contiguous() else tensor.contiguous()


def _dense(tensor: Any) -> Any:
    return None if tensor is None else tensor.contiguous()


class _Chunks(NamedTuple):
    """What `_forward.prepare` knows of each chunk and head: (slots, H, Q) each."""

    steps: Tensor
    totals: Tensor
    sources: Tensor
    sequence_of: Tensor | None


def _prepare(
    plan: _Plan, delta: Tensor, A: Tensor, bias: Tensor | None, softplus: bool, bounds: Tensor | None
) -> _Chunks:
    delta = _rows(delta)
    shape = (plan.slots, plan.heads, plan.chunk)
    steps = torch.empty(shape, dtype=torch.float32, device=delta.device)
    totals, sources = (torch.empty_like(steps, dtype=torch.float64 if plan.exact else torch.float32) for _ in range(2))
    sequence_of = None if bounds is None else _sequence_of(plan, bounds)
    _forward.prepare[(plan.slots, triton.cdiv(plan.heads, 16))](
        delta, A, bias, bounds, sequence_of, steps, totals, sources, plan.length, plan.heads, delta.stride(1),
        Q=plan.chunk, HEADS=16, SOFTPLUS=softplus, PACKED=plan.packed, EXACT=plan.exact, num_warps=4,
    )  # fmt: skip
    return _Chunks(steps, totals, sources, sequence_of)


def _sequence_of(plan: _Plan, bounds: Tensor) -> Tensor:
    """The sequence that each slot belongs to, found on the GPU."""
    firsts = bounds[:-1] // plan.chunk + torch.arange(plan.sequences, device=bounds.device)
    slots = torch.arange(plan.slots, device=bounds.device)
    return (torch.searchsorted(firsts, slots, right=True) - 1).to(torch.int32)


def _walk(
    plan: _Plan, chunks: _Chunks, x: Tensor, B: Tensor, arriving: Tensor | None, bounds: Tensor | None, reverse: bool,
    segments: int, states: Tensor | None, leaving: Tensor | None,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """Where there are segments, what each ends in and its decay; then `states` and `leaving` where they are wanted."""
    sources = plan.source(x, plan.block_p), plan.source(B, plan.block_n)
    ends = passed = None
    rows = plan.sequences * plan.slices

    def launch(*tensors: Any) -> None:
        _forward.walk[(rows, segments)](
            *sources, chunks.totals, chunks.sources, *tensors, bounds,
            plan.length, plan.heads, plan.heads // plan.groups, x.stride(1), B.stride(1),
            **plan.shapes(), STORED=plan.stored, REVERSE=reverse, **plan.launch("walk"),
        )  # fmt: skip

    if segments > 1:
        ends = torch.empty((rows, segments, plan.block_p, plan.block_n), dtype=torch.float32, device=x.device)
        passed = torch.empty((rows, segments), dtype=torch.float32, device=x.device)
        launch(None, None, None, None, None, ends, passed)
    if states is not None:
        launch(arriving, ends, passed, plan.states(states), leaving, None, None)
    return ends, passed


def _run_forward(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
    bias: Tensor | None, initial: Tensor | None, bounds: Tensor | None, softplus: bool, keep_ungated: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """y, y before the gate (empty unless kept) and the final state, for x, B and C of one dtype."""
    A, D, bias, initial = map(_dense, (A, D, bias, initial))
    x, B, C = map(_rows, (x, B, C))
    z = None if z is None else _rows(z)
    plan = _with_mode(_plan(x, B, bounds), x, B, C, z)
    segments = plan.segments(_processors(x.device))
    chunks = _prepare(plan, delta, A, bias, softplus, bounds)
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    ungated = torch.empty_like(y) if keep_ungated else None
    final = torch.empty((plan.sequences, plan.heads, plan.P, plan.N), dtype=torch.float32, device=x.device)
    ends, passed = _walk(plan, chunks, x, B, None, bounds, False, segments, None, None)
    by_p, by_n = (functools.partial(plan.source, columns=columns) for columns in (plan.block_p, plan.block_n))
    _forward.forward[(plan.sequences * plan.slices, segments)](
        by_p(x), by_n(B), by_n(C), D, by_p(z), chunks.totals, chunks.sources, initial, ends, passed, bounds, by_p(y),
        by_p(ungated), final, plan.length, plan.heads, plan.heads // plan.groups, x.stride(1), B.stride(1), C.stride(1),
        0 if z is None else z.stride(1), **plan.shapes(), SKIP=_skip(D), **plan.launch("forward"),
    )  # fmt: skip
    return y, y.new_empty(0) if ungated is None else ungated, final


def _skip(D: Tensor | None) -> int:
    return 0 if D is None else D[0].numel()


def _run_backward(
    dy: Tensor, dfinal: Tensor, x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
    z: Tensor | None, bias: Tensor | None, initial: Tensor | None, bounds: Tensor | None, ungated: Tensor,
    softplus: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    """The gradients of x, delta, A, B, C, D, z, bias and the initial state; empty for what was not given."""
    A, D, bias, initial, dfinal = map(_dense, (A, D, bias, initial, dfinal))
    dz = x.new_empty(0)
    if z is not None:
        dy, dz = _gate_backward(dy.contiguous(), z.contiguous(), ungated)
    x, B, C, dy = map(_rows, (x, B, C, dy))
    plan = _with_mode(_plan(x, B, bounds), x, B, C, dy)
    chunks = _prepare(plan, delta, A, bias, softplus, bounds)
    segments = plan.segments(_processors(x.device))
    scratch = (plan.slots, plan.slices, plan.block_p, plan.block_n)
    states, dstates = x.new_empty(scratch), x.new_empty(scratch)
    dinitial = torch.empty((plan.sequences, plan.heads, plan.P, plan.N), dtype=torch.float32, device=x.device)
    _walk(plan, chunks, x, B, initial, bounds, False, segments, states, None)
    _walk(plan, chunks, dy, C, dfinal, bounds, True, segments, dstates, dinitial)
    dx, ddelta, dA, dB, dC, dD = _chunks_backward(plan, chunks, x, A, B, C, D, softplus, bounds, dy, states, dstates)
    dbias = ddelta.sum((0, 1)) if bias is not None else x.new_empty(0)
    return dx, ddelta, dA, dB, dC, dD, dz, dbias, dinitial


def _gate_backward(dy: Tensor, z: Tensor, ungated: Tensor) -> tuple[Tensor, Tensor]:
    dungated, dz = torch.empty_like(ungated), torch.empty_like(z)
    grid = (triton.cdiv(dy.numel(), 4096),)
    _backward.gate_backward[grid](dy, z, ungated, dungated, dz, dy.numel(), BLOCK=4096, num_warps=8)
    return dungated, dz


def _chunks_backward(
    plan: _Plan, chunks: _Chunks, x: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
    softplus: bool, bounds: Tensor | None, dy: Tensor, states: Tensor, dstates: Tensor,
) -> tuple[Tensor, ...]:  # fmt: skip
    per_group = plan.heads // plan.groups
    parts = min(per_group, triton.cdiv(4 * _processors(x.device), plan.slots * plan.groups))
    small: dict[str, Any] = {"dtype": torch.float32, "device": x.device}
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    # Slots of packed sequences can stay unused: zeros there.
    dA = torch.zeros((plan.slots, plan.heads), **small)
    skips = plan.slices_of_head * plan.chunk if _skip(D) == 1 else plan.P
    dD = None if D is None else torch.zeros((plan.slots, plan.heads, skips), **small)
    dsince, dwritten, duntil = (torch.empty((plan.slots, plan.slices, plan.chunk), **small) for _ in range(3))
    dcrossing = torch.empty_like(dsince, dtype=chunks.totals.dtype)
    dpassed = torch.empty((plan.slots, plan.slices), **small)
    dB, dC = (torch.empty((parts, *B.shape), **small) for _ in range(2))
    grid, sizes = (plan.slots, plan.groups, parts), (plan.length, plan.tokens, plan.heads, per_group)
    where = (bounds, chunks.sequence_of)
    by_p, by_n = (functools.partial(plan.source, columns=columns) for columns in (plan.block_p, plan.block_n))
    after = plan.states(dstates)
    _backward.across[grid](
        by_p(x), by_n(C), by_p(dy), chunks.steps, chunks.totals, plan.states(states), after, *where, dB, dC, dsince,
        dpassed, *sizes, x.stride(1), C.stride(1), dy.stride(1),
        **plan.shapes(), STORED=plan.stored, **plan.launch("across"),
    )  # fmt: skip
    _backward.inside[grid](
        by_p(x), by_n(B), by_n(C), D, by_p(dy), chunks.steps, chunks.totals, after, *where, by_p(dx), dB, dC, dD,
        dwritten, duntil, dcrossing, *sizes, x.stride(1), B.stride(1), C.stride(1), dy.stride(1),
        **plan.shapes(), STORED=plan.stored, SKIP=_skip(D), **plan.launch("inside"),
    )  # fmt: skip
    ddelta = torch.empty(x.shape[:3], **small)
    _backward.finish[(plan.slots, triton.cdiv(plan.heads, 16))](
        A, chunks.steps, dsince, dpassed, dwritten, duntil, dcrossing, *where, ddelta, dA, plan.length, plan.heads,
        Q=plan.chunk, SLICES=plan.slices_of_head, HEADS=16, SOFTPLUS=softplus, PACKED=plan.packed, num_warps=4,
    )  # fmt: skip
    dD = x.new_empty(0) if D is None or dD is None else dD.sum((0, 2) if _skip(D) == 1 else (0,))
    return dx, ddelta, dA.sum(0), dB.sum(0), dC.sum(0), dD


@torch.library.custom_op("ssm_kit::ssd_forward", mutates_args=(), device_types="cuda")
def _forward_op(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
    delta_bias: Tensor | None, initial_state: Tensor | None, cu_seqlens: Tensor | None,
    delta_softplus: bool, keep_ungated: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    with torch.cuda.device(x.device):
        return _run_forward(
            x, delta, A, B, C, D, z, delta_bias, initial_state, cu_seqlens, delta_softplus, keep_ungated
        )


@_forward_op.register_fake
def _forward_shapes(x, delta, A, B, C, D, z, delta_bias, initial_state, cu_seqlens, delta_softplus, keep_ungated):
    rows = x.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    state = torch.empty((rows, *x.shape[2:], B.shape[3]), dtype=torch.float32, device=x.device)
    return y, torch.empty_like(y) if keep_ungated else y.new_empty(0), state


@torch.library.custom_op("ssm_kit::ssd_backward", mutates_args=(), device_types="cuda")
def _backward_op(
    dy: Tensor, dstate: Tensor, x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
    z: Tensor | None, delta_bias: Tensor | None, initial_state: Tensor | None, cu_seqlens: Tensor | None,
    ungated: Tensor, delta_softplus: bool,
) -> list[Tensor]:  # fmt: skip
    """The gradients of x, delta, A, B, C, D, z, delta_bias, initial_state in their dtypes; empty for None."""
    inputs = (x, delta, A, B, C, D, z, delta_bias, initial_state)
    with torch.cuda.device(x.device):
        gradients = _run_backward(dy, dstate, *inputs, cu_seqlens, ungated, delta_softplus)
    return [
        x.new_empty(0) if tensor is None else part.to(tensor.dtype).reshape(tensor.shape)
        for part, tensor in zip(gradients, inputs, strict=True)
    ]


@_backward_op.register_fake
def _backward_shapes(
    dy, dstate, x, delta, A, B, C, D, z, delta_bias, initial_state, cu_seqlens, ungated, delta_softplus
):
    inputs = (x, delta, A, B, C, D, z, delta_bias, initial_state)
    return [x.new_empty(0) if t is None else torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in inputs]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:10], output[1])
    ctx.softplus = inputs[10]
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(True)


@differentiable_once
def _gradients(ctx: Any, dy: Tensor, _: Tensor, dstate: Tensor) -> tuple[Tensor | None, ...]:
    *inputs, ungated = ctx.saved_tensors
    gradients = _backward_op(dy, dstate, *inputs, ungated, ctx.softplus)
    kept = [part if tensor is not None else None for part, tensor in zip(gradients, inputs[:9], strict=True)]
    return *kept, None, None, None


_forward_op.register_autograd(_gradients, setup_context=_save)


def scan(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, *, D: Tensor | None = None, z: Tensor | None = None,
    delta_bias: Tensor | None = None, delta_softplus: bool = False, initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`ssd` with its own arguments: y in the dtype of x, and the final state in float32."""
    dtype = functools.reduce(torch.promote_types, (x.dtype, B.dtype, C.dtype))
    tensors = (x, delta, A, B, C, D, z, delta_bias, initial_state)
    trained = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
    y, _, state = _forward_op(
        x.to(dtype), delta, A, B.to(dtype), C.to(dtype), D, z, delta_bias, initial_state, cu_seqlens,
        delta_softplus, trained and z is not None,
    )  # fmt: skip
    return y.to(x.dtype), state


def step(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, *, state: Tensor, D: Tensor | None = None,
    z: Tensor | None = None, delta_bias: Tensor | None = None, delta_softplus: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`ssd_step` in one launch, without gradients; it neither waits for the GPU nor writes into its arguments."""
    with torch.cuda.device(x.device):
        return _run_step(x, delta, A, B, C, state, D, z, delta_bias, delta_softplus)


def _run_step(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor, D: Tensor | None, z: Tensor | None,
    bias: Tensor | None, softplus: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    batch, heads, P, N = state.shape
    x, delta, B, C = (tensor if tensor[0].is_contiguous() else tensor.contiguous() for tensor in (x, delta, B, C))
    z = z if z is None or z[0].is_contiguous() else z.contiguous()
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    after = torch.empty(state.shape, dtype=torch.float32, device=x.device)
    block_n = max(16, triton.next_power_of_2(N))
    block_p = min(triton.next_power_of_2(P), max(1, 4096 // block_n))
    _step.step[(batch * heads, triton.cdiv(P, block_p))](
        state.contiguous(), x, delta, A.contiguous(), B, C, None if D is None else D.contiguous(), z,
        None if bias is None else bias.contiguous(), y, after, heads, heads // B.shape[1], x.stride(0),
        delta.stride(0), B.stride(0), C.stride(0), 0 if z is None else z.stride(0), P=P, N=N, BLOCK_P=block_p,
        BLOCK_N=block_n, SKIP=_skip(D), SOFTPLUS=softplus, num_warps=4,
    )  # fmt: skip
    return y, after
