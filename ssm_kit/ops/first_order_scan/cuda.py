"""The first-order scan on a GPU, in Triton.

A program owns BLOCK channels of one sequence and walks through time with their states in registers. Channels lie side
by side in memory, so a step of 32 lanes is one full line. One step is one multiply-add on 12 bytes (float32): only
the memory counts, and the one trick is to ask for ROWS steps of input before the first of them is used, so that
enough bytes are on their way. Where few channels leave the GPU idle, time is cut into segments, as in `chunked.py`:
`_summarize` gives each segment's decay and its last state from zero, and `_scan` starts from what came before it.

Bytes at 32768 sequences of 4096 steps: forward reads a, b, writes h, 1.61 GB in float32; backward reads a, h, h̄ and
writes ā, b̄, 2.68 GB. At the 4274 GB/s of an H200's copy: 0.377 and 0.628 ms; half of that in bfloat16. FLOPs, 2 and 3
per number, take a hundredth of it. Segments read a and b twice, five transfers in place of three.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ssm_kit.ops._autograd import differentiable_once
from ssm_kit.ops._gpu import unsupported_dtype, with_dense_channels

unsupported = unsupported_dtype


@triton.jit
def _place(segments, channels, BLOCK: tl.constexpr):
    """What this program owns: a sequence, a segment of its time, channels, and which of those exist."""
    blocks = tl.cdiv(channels, BLOCK)
    program = tl.program_id(0)
    columns = (program % blocks) * BLOCK + tl.arange(0, BLOCK)
    program = (program // blocks).to(tl.int64)  # offsets count beyond 2^31
    return program // segments, program % segments, columns, columns < channels


@triton.jit
def _first_row(pointer, sequence, batch_stride, time_stride, length, STEP: tl.constexpr):
    """The row where the run begins: the last one in time if STEP is -1."""
    pointer += sequence * batch_stride
    if STEP < 0:
        pointer += (length.to(tl.int64) - 1) * time_stride
    return pointer


@triton.jit
def _rows(pointer, stride, i, length, columns, inside, neutral, ROWS: tl.constexpr):
    """Rows i .. i + ROWS - 1 in the order of the run, `neutral` outside of 0 .. length - 1."""
    rows = ()
    for r in tl.static_range(ROWS):
        exists = inside & (i + r >= 0) & (i + r < length)
        rows += (tl.load(pointer + (i + r) * stride + columns, exists, other=neutral),)
    return rows


@triton.jit
def _given_state(pointer, sequence, channels, columns, inside, BLOCK: tl.constexpr):
    """A row of a (B, D) state in float32, zero if there is none."""
    state = tl.zeros([BLOCK], tl.float32)
    if pointer is not None:
        state += tl.load(pointer + sequence * channels + columns, inside, other=0.0).to(tl.float32)
    return state


@triton.jit(do_not_specialize=["length", "segments"])  # a 1 would become a constant, which has no dtype
def _summarize(
    a, b, products, lasts, length, channels, segments, segment_length, a_batch, a_time, b_batch, b_time,
    STEP: tl.constexpr, SHIFT: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The decay over each segment but the last, and the state at its end from a zero state."""
    sequence, segment, columns, inside = _place(segments - 1, channels, BLOCK)
    a = _first_row(a, sequence, a_batch, a_time, length, STEP)
    b = _first_row(b, sequence, b_batch, b_time, length, STEP)
    product, state = tl.full([BLOCK], 1.0, tl.float32), tl.zeros([BLOCK], tl.float32)
    for i in range(segment * segment_length, (segment + 1) * segment_length, ROWS):
        decays = _rows(a, STEP * a_time, i - SHIFT, length - SHIFT, columns, inside, 1.0, ROWS)
        inputs = _rows(b, STEP * b_time, i, length, columns, inside, 0.0, ROWS)
        for r in tl.static_range(ROWS):
            decay = decays[r].to(tl.float32)
            state = decay * state + inputs[r].to(tl.float32)
            product *= decay
    place = (sequence * (segments - 1) + segment) * channels + columns
    tl.store(products + place, product, inside)
    tl.store(lasts + place, state, inside)


@triton.jit(do_not_specialize=["length", "segments"])
def _scan(
    a, b, initial, products, lasts, h, final, states, states_start, da, length, channels, segments, segment_length,
    a_batch, a_time, b_batch, b_time, STEP: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """h_i = a_i h_{i-1} + b_i; or its gradient, another scan, where `states` of the forward run are given.

    The gradient walks the other way. Its input b is h̄, its output h is b̄, and the decay on its way from one step to
    the next is that of the step it leaves (SHIFT). Beside it ā = b̄ times the state before, one row further on.
    """
    GRADIENT: tl.constexpr = states is not None
    SHIFT: tl.constexpr = 1 if GRADIENT else 0
    sequence, segment, columns, inside = _place(segments, channels, BLOCK)
    a = _first_row(a, sequence, a_batch, a_time, length, STEP)
    b = _first_row(b, sequence, b_batch, b_time, length, STEP)
    dense = length.to(tl.int64) * channels
    h = _first_row(h, sequence, dense, channels, length, STEP)
    state = _given_state(initial, sequence, channels, columns, inside, BLOCK)
    if products is not None:
        for s in range(segment):
            place = (sequence * (segments - 1) + s) * channels + columns
            carried = state * tl.load(products + place, inside, other=0.0)
            # A product of growing decays may overflow; a state of zero stays zero all the same.
            state = tl.where(state == 0.0, 0.0, carried) + tl.load(lasts + place, inside, other=0.0)
    if GRADIENT:
        states = _first_row(states, sequence, dense, channels, length, STEP)
        da = _first_row(da, sequence, dense, channels, length, STEP)
        start = _given_state(states_start, sequence, channels, columns, inside, BLOCK)
    for i in range(segment * segment_length, min((segment + 1) * segment_length, length), ROWS):
        decays = _rows(a, STEP * a_time, i - SHIFT, length - SHIFT, columns, inside, 1.0, ROWS)
        inputs = _rows(b, STEP * b_time, i, length, columns, inside, 0.0, ROWS)
        if GRADIENT:
            befores = _rows(states, STEP * channels, i + 1, length, columns, inside, 0.0, ROWS)
        for r in tl.static_range(ROWS):
            state = decays[r].to(tl.float32) * state + inputs[r].to(tl.float32)
            row = (i + r) * (STEP * channels) + columns
            tl.store(h + row, state, inside & (i + r < length))
            if GRADIENT:
                before = tl.where(i + r + 1 == length, start, befores[r].to(tl.float32))
                tl.store(da + row, state * before, inside & (i + r < length))
    if segment == segments - 1:
        if GRADIENT:
            (decay,) = _rows(a, STEP * a_time, length.to(tl.int64) - 1, length, columns, inside, 1.0, 1)
            state *= decay.to(tl.float32)
        tl.store(final + sequence * channels + columns, state, inside)


@triton.jit
def _step(a, b, state, following, size, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    decay, now = tl.load(a + i, i < size).to(tl.float32), tl.load(state + i, i < size).to(tl.float32)
    tl.store(following + i, decay * now + tl.load(b + i, i < size).to(tl.float32), i < size)


class Plan(NamedTuple):
    """How a scan is cut: programs of `warps` warps, `block` channels, `rows` steps at a time, time in `segments`."""

    rows: int
    block: int
    warps: int
    segments: int
    segment_length: int


def plan(a: Tensor, gradient: bool) -> Plan:
    """The cut for a (B, L, D): a line of 128 bytes to a warp, and time in segments where the sequences are few."""
    batch, length, channels = a.shape
    rows, block = 16, 64
    programs = batch * triton.cdiv(channels, block)
    wanted = 4 * torch.cuda.get_device_properties(a.device).multi_processor_count
    segments = max(1, min(wanted // programs, length // 512))
    segment_length = triton.cdiv(triton.cdiv(length, segments), rows) * rows
    return Plan(rows, block, 1, triton.cdiv(length, segment_length), segment_length)


def forward(a: Tensor, b: Tensor, initial: Tensor | None, reverse: bool) -> tuple[Tensor, Tensor]:
    """All states (B, L, D) in the common dtype of a and b, and the last (B, D) in float32."""
    h = torch.empty(a.shape, dtype=torch.promote_types(a.dtype, b.dtype), device=a.device)
    final = h.new_empty((h.shape[0], h.shape[2]), dtype=torch.float32)
    launch(plan(a, False), a, b, initial, h, final, step=-1 if reverse else 1)
    return h, final


def backward(
    a: Tensor, h: Tensor, initial: Tensor | None, dh: Tensor, dfinal: Tensor, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of a, b (in the dtype of h) and the initial state (B, D) in float32."""
    da, db = torch.empty_like(a, memory_format=torch.contiguous_format), torch.empty_like(h)
    dinitial = torch.empty_like(dfinal)
    gradient = (h, initial, da)
    launch(plan(a, True), a, dh, dfinal, db, dinitial, gradient, step=1 if reverse else -1)
    return da, db, dinitial


def launch(
    cut: Plan, a: Tensor, b: Tensor, initial: Tensor | None, h: Tensor, final: Tensor,
    gradient: tuple[Tensor | None, ...] = (None, None, None), *, step: int,
) -> None:  # fmt: skip
    batch, length, channels = a.shape
    a, b = with_dense_channels(a), with_dense_channels(b)
    initial = None if initial is None else initial.contiguous()
    sizes = (length, channels, cut.segments, cut.segment_length)
    strides = (*a.stride()[:2], *b.stride()[:2])
    sizes_known = {"STEP": step, "ROWS": cut.rows, "BLOCK": cut.block, "num_warps": cut.warps}
    programs = batch * triton.cdiv(channels, cut.block)
    products = lasts = None
    with torch.cuda.device_of(a):
        if cut.segments > 1:
            products, lasts = final.new_empty((2, batch, cut.segments - 1, channels)).unbind()
            shift = int(gradient[0] is not None)
            _summarize[(programs * (cut.segments - 1),)](
                a, b, products, lasts, *sizes, *strides, SHIFT=shift, **sizes_known
            )
        _scan[(programs * cut.segments,)](
            a, b, initial, products, lasts, h, final, *gradient, *sizes, *strides, **sizes_known
        )


_forward = torch.library.custom_op(
    "ssm_kit::first_order_scan_forward", forward, mutates_args=(), device_types="cuda",
    schema="(Tensor a, Tensor b, Tensor? initial, bool reverse) -> (Tensor, Tensor)",
)  # fmt: skip
_backward = torch.library.custom_op(
    "ssm_kit::first_order_scan_backward", backward, mutates_args=(), device_types="cuda",
    schema="(Tensor a, Tensor h, Tensor? initial, Tensor dh, Tensor dfinal, bool reverse) -> (Tensor, Tensor, Tensor)",
)  # fmt: skip


@_forward.register_fake
def _(a: Tensor, b: Tensor, initial: Tensor | None, reverse: bool) -> tuple[Tensor, Tensor]:
    h = torch.empty(a.shape, dtype=torch.promote_types(a.dtype, b.dtype), device=a.device)
    return h, h.new_empty((h.shape[0], h.shape[2]), dtype=torch.float32)


@_backward.register_fake
def _(
    a: Tensor, h: Tensor, initial: Tensor | None, dh: Tensor, dfinal: Tensor, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(a, memory_format=torch.contiguous_format), torch.empty_like(h), torch.empty_like(dfinal)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    a, b, initial, ctx.reverse = inputs
    ctx.save_for_backward(a, output[0], initial)
    ctx.b_dtype = b.dtype


@differentiable_once
def _gradients(ctx: Any, dh: Tensor, dfinal: Tensor) -> tuple[Tensor | None, ...]:
    a, h, initial = ctx.saved_tensors
    da, db, dinitial = _backward(a, h, initial, dh, dfinal, ctx.reverse)
    return da, db.to(ctx.b_dtype), None if initial is None else dinitial.to(initial.dtype), None


_forward.register_autograd(_gradients, setup_context=_save)


def scan(a: Tensor, b: Tensor, initial_state: Tensor | None, reverse: bool) -> tuple[Tensor, Tensor]:
    """`first_order_scan` with its final state; differentiable once."""
    h, final = _forward(a, b, initial_state, reverse)
    return h, final


def step(a: Tensor, b: Tensor, state: Tensor) -> Tensor:
    """a · state + b (B, D) in float32, in one launch; without gradients."""
    a, b, state = (tensor.contiguous() for tensor in (a, b, state))
    following = torch.empty_like(state, dtype=torch.float32)
    with torch.cuda.device_of(a):
        _step[(triton.cdiv(state.numel(), 512),)](a, b, state, following, state.numel(), BLOCK=512)
    return following
