"""What the Triton kernels of the delta rules share: where a sequence and a chunk lie, tiles, decays inside a chunk.

Letters: C steps to a chunk, K × V a memory; K_PAD, V_PAD (powers of two) where a tile needs them, BV a slice of values.
The memory and everything made of values stand transposed in the walks, Sᵀ (V, K), Uᵀ (V, C): the matrix products of a
walk then read their left operand from the registers that the product before has left it in.
"""

import triton
import triton.language as tl


@triton.jit
def span(bounds, sequence, length, PACKED: tl.constexpr):
    """A sequence's first step, counted over all sequences end to end (64 bits), and its number of steps."""
    if PACKED:
        first = tl.load(bounds + sequence).to(tl.int64)
        steps = (tl.load(bounds + sequence + 1) - first).to(tl.int32)
    else:
        first = sequence.to(tl.int64) * length
        steps = length
    return first, steps


@triton.jit
def slot_of(first, sequence, length, C: tl.constexpr, PACKED: tl.constexpr):
    """Where a sequence's first chunk is stored among all chunks; packed sequences leave at most one slot unused."""
    return first // C + sequence if PACKED else sequence.to(tl.int64) * tl.cdiv(length, C)


@triton.jit
def chunk_of(bounds, sequence_of, slot, length, C: tl.constexpr, PACKED: tl.constexpr):
    """The first step of the chunk in a slot, and the steps from there to the sequence's end (<= 0: unused)."""
    sequence = tl.load(sequence_of + slot) if PACKED else slot // tl.cdiv(length, C)
    first, steps = span(bounds, sequence, length, PACKED)
    before = (slot - slot_of(first, sequence, length, C, PACKED)).to(tl.int32) * C
    return first + before, steps - before


@triton.jit
def tile(pointer, stride, rows, columns, left, LIMIT: tl.constexpr):
    """(rows, columns) of a matrix whose rows are `stride` apart; 0 beyond `left` rows or LIMIT columns."""
    mask = (rows < left)[:, None] & (columns < LIMIT)[None, :]
    return tl.load(pointer + rows[:, None] * stride + columns[None, :], mask=mask, other=0.0)


@triton.jit
def tile_transposed(pointer, stride, rows, columns, left, LIMIT: tl.constexpr):
    """`tile`, as (columns, rows)."""
    mask = (columns < LIMIT)[:, None] & (rows < left)[None, :]
    return tl.load(pointer + rows[None, :] * stride + columns[:, None], mask=mask, other=0.0)


@triton.jit
def put(pointer, stride, rows, columns, left, LIMIT: tl.constexpr, value):
    """Write (rows, columns) where `tile` reads."""
    mask = (rows < left)[:, None] & (columns < LIMIT)[None, :]
    tl.store(pointer + rows[:, None] * stride + columns[None, :], value.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def put_transposed(pointer, stride, rows, columns, left, LIMIT: tl.constexpr, value):
    """Write (columns, rows) where `tile_transposed` reads."""
    mask = (columns < LIMIT)[:, None] & (rows < left)[None, :]
    tl.store(pointer + rows[None, :] * stride + columns[:, None], value.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def log_decays(g, stride, rows, left):
    """G_i = g_1 + ... + g_i of a chunk as (high, low), two float32 numbers.

    Differences of G keep their digits in two parts; -10⁴ in place of −∞ is exp to zero too and has differences.
    """
    raw = tl.load(g + rows * stride, mask=rows < left, other=0.0).to(tl.float32)
    total = tl.cumsum(tl.maximum(raw, -1e4).to(tl.float64), 0)
    high = total.to(tl.float32)
    return high, (total - high.to(tl.float64)).to(tl.float32)


@triton.jit
def decays_between(high, low, rows):
    """Γ (C, C): the decay from step j to step i, [i, j]; 0 where j is later. Masked before exp: no inf."""
    exponent = (high[:, None] - high[None, :]) + (low[:, None] - low[None, :])
    return tl.exp(tl.where(rows[:, None] >= rows[None, :], exponent, float("-inf")))


@triton.jit
def decays_to_end(high, low, rows, C: tl.constexpr):
    """(C,): the decay from each step to the end of the chunk."""
    last = rows == C - 1
    return tl.exp((tl.sum(tl.where(last, high, 0.0), 0) - high) + (tl.sum(tl.where(last, low, 0.0), 0) - low))


@triton.jit
def load_factors(factors, rows, C: tl.constexpr):
    """What `inside` kept of each step, as rows (1, C): γ since the chunk's start, until its end, β; and γ_C."""
    since = tl.load(factors + rows)[None, :]
    until = tl.load(factors + C + rows)[None, :]
    return since, until, tl.load(factors + 2 * C + rows)[None, :], tl.load(factors + C - 1)
