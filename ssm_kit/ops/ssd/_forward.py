"""Triton kernels of SSD that walk along a sequence with the state on chip, and what they want to know of each chunk."""

import triton
import triton.language as tl

from ssm_kit.ops._slots import slot_of, span
from ssm_kit.ops.ssd._tiles import (
    LOG2_E,
    MASKED,
    chunk_at,
    chunks_of,
    decays_between,
    exp2,
    inherited,
    put,
    softplus,
    tile,
    unit_of,
)


@triton.jit
def prepare(
    delta, A, bias, bounds, sequence_of, steps, totals, sources, length, heads, stride_delta,
    Q: tl.constexpr, HEADS: tl.constexpr, SOFTPLUS: tl.constexpr, PACKED: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Per chunk and head, (slots, H, Q): Δ; the running total of log₂ decays; that less log₂ Δ. Grid (slots, H/HEADS).

    For float32 inputs totals are float64: a total of thousands leaves float32 few digits of a small difference. In half
    precision a step that forgets everything (2^-150 is 0 in float32) is held at that, so that totals stay below 10⁴.
    """
    slot, at = tl.program_id(0).to(tl.int64), tl.arange(0, Q)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    start, left = chunk_at(slot, bounds, sequence_of, length, Q, PACKED)
    given = head < heads
    step = tile(delta, start, stride_delta, 0, at, head, left, heads, MASKED).to(tl.float32)
    if bias is not None:
        step += tl.load(bias + head, mask=given, other=0.0).to(tl.float32)[None, :]
    if SOFTPLUS:
        step = softplus(step)
    step = tl.where((at < left)[:, None], step, 0.0)  # Δ = 0 changes nothing
    log_decay = step * (tl.load(A + head, mask=given, other=0.0).to(tl.float32) * LOG2_E)[None, :]
    total = tl.cumsum(log_decay.to(tl.float64) if EXACT else tl.maximum(log_decay, -150.0), 0)
    places = (slot * heads + head)[None, :] * Q + at[:, None]
    tl.store(steps + places, step, mask=given[None, :])
    tl.store(totals + places, total, mask=given[None, :])
    tl.store(sources + places, total - tl.log2(step), mask=given[None, :])


@triton.jit
def forward(
    x, B, C, D, z, totals, sources, initial, ends, passed, bounds, y, ungated, final,
    length, heads, per_group, pieces, stride_x, stride_B, stride_C, stride_z,
    P: tl.constexpr, N: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr, Q: tl.constexpr,
    SLICES: tl.constexpr, SKIP: tl.constexpr, PACKED: tl.constexpr, MODE: tl.constexpr, PRECISION: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """y of one segment, and the state after the last; grid (sequences × slices, segments).

    SKIP: 0 without D, 1 for one D a head, P for one a row. SLICES: per head.
    """
    slices, segment = heads * SLICES, tl.program_id(1)
    slice_, sequence = tl.program_id(0) % slices, tl.program_id(0) // slices
    head = slice_ // SLICES
    at, n, offset = tl.arange(0, Q), tl.arange(0, BLOCK_N), slice_ % SLICES * BLOCK_P
    row, p = tl.arange(0, BLOCK_P), offset + tl.arange(0, BLOCK_P)
    first, steps = span(bounds, sequence, length, PACKED)
    slot = slot_of(first, sequence, length, Q, PACKED)
    low, high = chunks_of(segment, tl.num_programs(1), tl.cdiv(steps, Q), 1)
    own = (sequence * heads + head).to(tl.int64) * P * N + p[:, None] * N + n[None, :]
    fits = (p < P)[:, None] & (n < N)[None, :]
    h = tl.zeros((BLOCK_P, BLOCK_N), tl.float32)
    if initial is not None:
        h += tl.load(initial + own, mask=fits, other=0.0).to(tl.float32)
    if ends is not None:
        line, SIZE = tl.program_id(0).to(tl.int64) * (tl.num_programs(1) * pieces), BLOCK_P * BLOCK_N
        entries = row[:, None] * BLOCK_N + n[None, :]
        h = inherited(h, ends + line * SIZE, passed + line, segment, False, SIZE, pieces, entries)
    if SKIP > 0:
        D_row = tl.load(D + head * SKIP + (p if SKIP > 1 else 0 * p), mask=p < P, other=0.0).to(tl.float32)
    for chunk in tl.range(low, high, num_stages=STAGES):
        start, left = first + chunk * Q, steps - chunk * Q
        B_tile = tile(B, start, stride_B, head // per_group * N, at, n, left, N, MODE)
        C_tile = tile(C, start, stride_C, head // per_group * N, at, n, left, N, MODE)
        x_tile = tile(x, start, stride_x, head * P + offset, at, row, left, P - offset, MODE)
        known = ((slot + chunk) * heads + head) * Q
        to, since_start = tl.load(sources + known + at), tl.load(totals + known + at)
        total = tl.load(totals + known + Q - 1)
        out = tl.dot(C_tile, tl.trans(h.to(C_tile.dtype)), input_precision=PRECISION) * exp2(since_start)[:, None]
        mix = tl.dot(C_tile, tl.trans(B_tile), input_precision=PRECISION) * decays_between(since_start, to, at)
        out = tl.dot(mix.to(x_tile.dtype), x_tile, out, input_precision=PRECISION)
        kept = (x_tile * exp2(total - to)[:, None]).to(x_tile.dtype)
        h = tl.dot(tl.trans(kept), B_tile, h * exp2(total), input_precision=PRECISION)
        if SKIP > 0:
            out += x_tile * D_row[None, :]
        if z is not None:
            if ungated is not None:
                put(ungated, out, start, heads * P, head * P + offset, at, row, left, P - offset, MODE)
            gate = tile(z, start, stride_z, head * P + offset, at, row, left, P - offset, MODE).to(tl.float32)
            out *= gate / (1.0 + tl.exp(-gate))
        put(y, out, start, heads * P, head * P + offset, at, row, left, P - offset, MODE)
    if segment == tl.num_programs(1) - 1:
        tl.store(final + own, h, mask=fits)


@triton.jit
def walk(
    x, rest, B, B_units, totals, sources, arriving, ends, passed, states, units, leaving, end, across, bounds,
    length, heads, per_group, pieces, stride_x, stride_B,
    P: tl.constexpr, N: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr, Q: tl.constexpr,
    SLICES: tl.constexpr, PACKED: tl.constexpr, MODE: tl.constexpr, PRECISION: tl.constexpr, STORED: tl.constexpr,
    STAGES: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """The states alone; or with REVERSE their gradients, from the last chunk on, given dy for x and C for B.

    Stores what reaches each chunk in `states` (slots, slices, BLOCK_P, BLOCK_N) and what leaves the sequence in
    `leaving`. Or, to begin with where a sequence is cut into segments, what each of their `pieces` ends in when it
    starts from zero (`end`) and its decay (`across`). Grid (sequences × slices, segments; or pieces of them).

    The gradient of A is a sum that cancels, and feels what bfloat16 rounds off. So for the backward pass B or C come in
    float16 with their `B_units`, see `_backward.scaled`, and all that is rounded here becomes float16 with a unit, too:
    see `store_state` and `written`. `rest`, where given, is what rounding took from x.
    """
    slices, segment = heads * SLICES, tl.program_id(1)
    slice_, sequence = tl.program_id(0) % slices, tl.program_id(0) // slices
    head = slice_ // SLICES
    at, n, offset = tl.arange(0, Q), tl.arange(0, BLOCK_N), slice_ % SLICES * BLOCK_P
    row, p = tl.arange(0, BLOCK_P), offset + tl.arange(0, BLOCK_P)
    first, steps = span(bounds, sequence, length, PACKED)
    slot = slot_of(first, sequence, length, Q, PACKED)
    SIZE: tl.constexpr = BLOCK_P * BLOCK_N
    entries = row[:, None] * BLOCK_N + n[None, :]
    own = (sequence * heads + head).to(tl.int64) * P * N + p[:, None] * N + n[None, :]
    fits = (p < P)[:, None] & (n < N)[None, :]
    h = tl.zeros((BLOCK_P, BLOCK_N), tl.float32)
    if arriving is not None:
        h += tl.load(arriving + own, mask=fits, other=0.0).to(tl.float32)
    if ends is not None:
        line = tl.program_id(0).to(tl.int64) * (tl.num_programs(1) * pieces)
        h = inherited(h, ends + line * SIZE, passed + line, segment, REVERSE, SIZE, pieces, entries)
    low, high = chunks_of(segment, tl.num_programs(1), tl.cdiv(steps, Q), 1 if end is None else pieces)
    if end is not None:  # no segment inherits from the last
        last = 0 if REVERSE else tl.num_programs(1) // pieces - 1
        high = tl.where(segment // pieces == last, low, high)
    decay = 1.0
    for index in tl.range(low, high, num_stages=STAGES):
        chunk = low + high - 1 - index if REVERSE else index
        start, left = first + chunk * Q, steps - chunk * Q
        B_tile = tile(B, start, stride_B, head // per_group * N, at, n, left, N, MODE)
        x_tile = tile(x, start, stride_x, head * P + offset, at, row, left, P - offset, MODE)
        known = ((slot + chunk) * heads + head) * Q
        total = tl.load(totals + known + Q - 1)
        weight = exp2(tl.load(totals + known + at)) if REVERSE else exp2(total - tl.load(sources + known + at))
        kept = x_tile.to(tl.float32)
        if rest is not None:
            kept += tile(rest, start, stride_x, head * P + offset, at, row, left, P - offset, MODE)
        kept *= weight[:, None]
        kept_unit = 1.0 if B_units is None else unit_of(kept)
        if states is not None:
            stored = (slot + chunk) * slices + slice_
            store_state(states, units, h, kept_unit, stored, row, n, BLOCK_P, BLOCK_N, STORED)
        shared = (slot + chunk) * (heads // per_group) + head // per_group
        h = written(h * exp2(total), kept, kept_unit, B_tile, B_units, shared, PRECISION)
        decay *= exp2(total)
    if end is not None:
        piece = tl.program_id(0).to(tl.int64) * tl.num_programs(1) + segment
        tl.store(end + piece * SIZE + entries, h)
        tl.store(across + piece, decay)
    if leaving is not None:  # noqa: SIM102 - two ifs: the first is decided at compile time, the second is not
        if segment == (0 if REVERSE else tl.num_programs(1) - 1):
            tl.store(leaving + own, h, mask=fits)


@triton.jit
def store_state(
    states, units, h, kept_unit, index, row, n, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr, STORED: tl.constexpr
):  # fmt: skip
    """Store the state h before a chunk as number `index`.

    In float16 it has a unit of its own, in `units` (slots, slices, 2), beside that of what the chunk adds, x decayed.
    """
    unit = 1.0
    if units is not None:
        unit = unit_of(h)
        tl.store(units + index * 2, unit)
        tl.store(units + index * 2 + 1, kept_unit)
    put(states, h * (1.0 / unit), index * BLOCK_P, BLOCK_N, 0, row, n, BLOCK_P, BLOCK_N, STORED)


@triton.jit
def written(h, kept, kept_unit, B_tile, B_units, index, PRECISION: tl.constexpr):
    """h + keptᵀ B; where B is in units (this chunk's is number `index`), kept enters the product in its own."""
    if B_units is None:
        h = tl.dot(tl.trans(kept.to(B_tile.dtype)), B_tile, h, input_precision=PRECISION)
    else:
        added = tl.dot(tl.trans((kept * (1.0 / kept_unit)).to(B_tile.dtype)), B_tile)
        h += added * (kept_unit * tl.load(B_units + index))
    return h
