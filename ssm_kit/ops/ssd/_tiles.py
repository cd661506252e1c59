"""What the Triton kernels of SSD share: where a chunk lies, its decays, tiles.

Letters in all kernels: Q steps to a chunk; P rows and N columns to a state, BLOCK_P and BLOCK_N in a tile (powers of
two). A head of more than BLOCK_P rows is cut into slices: they share its Δ and A, and what is summed over heads is
summed over slices just the same. Every chunk of every sequence has a slot of its own in what kernels hand to kernels.
"""

import triton
import triton.language as tl

from ssm_kit.ops._slots import slot_of, span

LOG2_E = tl.constexpr(1.4426950408889634)
MASKED, FULL, COPIED = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)


@triton.jit
def chunk_at(slot, bounds, sequence_of, length, Q: tl.constexpr, PACKED: tl.constexpr):
    """A slot's first step (64 bits) and how many steps of its sequence are left there; none in an unused slot."""
    sequence = tl.load(sequence_of + slot) if PACKED else slot // tl.cdiv(length, Q)
    first, steps = span(bounds, sequence, length, PACKED)
    chunk = (slot - slot_of(first, sequence, length, Q, PACKED)).to(tl.int32)
    return first + chunk * Q, steps - chunk * Q


@triton.jit
def tile(source, row, stride, column, rows, columns, left, limit, MODE: tl.constexpr):
    """A tile (rows, columns) of a matrix from (row, column) on.

    MODE: what `source` is. MASKED, a pointer; 0 from the tile's row `left` and column `limit` on. FULL, a pointer; all
    tiles lie inside. COPIED, a descriptor for the bulk copy engine of Hopper GPUs; all tiles lie inside.
    """
    if MODE == COPIED:
        values = source.load([row.to(tl.int32), column])
    else:
        places = source + row * stride + column + rows[:, None] * stride + columns[None, :]
        if MODE == FULL:
            values = tl.load(places)
        else:
            values = tl.load(places, mask=(rows < left)[:, None] & (columns < limit)[None, :], other=0.0)
    return values


@triton.jit
def put(target, values, row, stride, column, rows, columns, left, limit, MODE: tl.constexpr):
    """Store what `tile` would load."""
    if MODE == COPIED:
        target.store([row.to(tl.int32), column], values.to(target.dtype))
    else:
        places = target + row * stride + column + rows[:, None] * stride + columns[None, :]
        values = values.to(target.dtype.element_ty)
        if MODE == FULL:
            tl.store(places, values)
        else:
            tl.store(places, values, mask=(rows < left)[:, None] & (columns < limit)[None, :])


@triton.jit
def unit_of(values):
    """A power of two; divided by it, the values fit float16, the largest of them near 2^14."""
    largest = tl.max(tl.max(tl.abs(values.to(tl.float32)), 1), 0)
    return tl.exp2(tl.floor(tl.log2(tl.maximum(largest, 1e-30))) - 14.0)


@triton.jit
def softplus(value):
    """ln(1 + e^v) = max(v, 0) + ln(1 + s), s = e^-|v|. Small s keep their digits: 1 + s is divided out as rounded."""
    small = tl.exp(-tl.abs(value))
    rounded = 1.0 + small
    log = tl.log(rounded) * (small / tl.where(rounded == 1.0, 1.0, rounded - 1.0))
    return tl.maximum(value, 0.0) + tl.where(rounded == 1.0, small, log)


@triton.jit
def exp2(exponent):
    """2^x in float32, of a difference that may have been taken in float64."""
    return tl.exp2(exponent.to(tl.float32))


@triton.jit
def decays_between(totals, sources, at):
    """(Q, Q) decay from step j to step i, [i, j]; 0 where j is later, masked before exp2 so that nothing overflows."""
    exponent = (totals[:, None] - sources[None, :]).to(tl.float32)
    return tl.exp2(tl.where(at[:, None] >= at[None, :], exponent, float("-inf")))


@triton.jit
def decays_onward(totals, at):
    """(Q, Q) decay from step j to step i, [j, i]; 0 where j is later, as in `decays_between`."""
    exponent = (totals[None, :] - totals[:, None]).to(tl.float32)
    return tl.exp2(tl.where(at[:, None] <= at[None, :], exponent, float("-inf")))


@triton.jit
def chunks_of(index, count, chunks, pieces):
    """The first chunk of piece `index`, and the one after its last: `count` of them, `pieces` to a segment."""
    of_segment = tl.cdiv(chunks, count // pieces)
    of_piece = tl.cdiv(of_segment, pieces)
    begin = index // pieces * of_segment
    low = begin + index % pieces * of_piece
    return low, tl.minimum(tl.minimum(low + of_piece, begin + of_segment), chunks)


@triton.jit
def inherited(state, ends, passed, segment, REVERSE: tl.constexpr, SIZE: tl.constexpr, pieces, entries):
    """The state that reaches a segment through the segments before it, or with REVERSE through those after it.

    Args:
        state: what reaches the first of them.
        ends, passed: of each of their `pieces`: what it ends in when it starts from zero, (pieces in all, SIZE); its
            decay, (pieces in all,).
    """
    segments = tl.num_programs(1)
    for index in range((segments - 1 - segment if REVERSE else segment) * pieces):
        other = segments * pieces - 1 - index if REVERSE else index
        state = state * tl.load(passed + other) + tl.load(ends + other * SIZE + entries)
    return state
