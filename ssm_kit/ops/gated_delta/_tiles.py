"""What the Triton kernels of the delta rules share: where a sequence and a chunk lie, tiles, decays inside a chunk.

Letters: C steps to a chunk, K × V a memory; K_PAD, V_PAD (powers of two) where a tile needs them, BV a slice of values.
The memory and everything made of values stand transposed in the walks, Sᵀ (V, K), Uᵀ (V, C): the matrix products of a
walk then read their left operand from the registers that the product before has left it in.
"""

import triton
import triton.language as tl

from ssm_kit.ops._slots import slot_of, span

LOG2_E = tl.constexpr(1.4426950408889634)
FORGETS = tl.constexpr(-150.0)
"""The lowest g that is told from −∞."""


@triton.jit
def chunk_of(bounds, sequence_of, slot, length, C: tl.constexpr, PACKED: tl.constexpr):
    """The chunk in a slot: its sequence and that one's first step, then its own first step, counted in the sequence,
    and the steps from there to the sequence's end (<= 0: the slot is unused)."""
    sequence = tl.load(sequence_of + slot) if PACKED else slot // tl.cdiv(length, C)
    first, steps = span(bounds, sequence, length, PACKED)
    at = (slot - slot_of(first, sequence, length, C, PACKED)).to(tl.int32) * C
    return sequence.to(tl.int32), first, at, steps - at


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
    """log2 γ_i, the sum of g_1 ... g_i over ln 2, of a chunk, as (high, low), two float32 numbers.

    Differences keep their digits in two parts. A step that forgets everything (e^-150 is 0 in float32) is held at that,
    so that −∞ has differences too.
    """
    raw = tl.load(g + rows * stride, mask=rows < left, other=0.0).to(tl.float32)
    total = tl.cumsum(tl.maximum(raw, FORGETS).to(tl.float64) * LOG2_E, 0)
    high = total.to(tl.float32)
    return high, (total - high.to(tl.float64)).to(tl.float32)


@triton.jit
def decays_between(high, low, rows, EXACT: tl.constexpr):
    """Γ (C, C): the decay from step j to step i, [i, j]; 0 where j is later. Masked before exp: no inf.

    Without EXACT by the high parts alone: those of 64 steps stay below 2^14, and their differences are good to 10⁻³.
    """
    exponent = high[:, None] - high[None, :]
    if EXACT:
        exponent += low[:, None] - low[None, :]
    return tl.exp2(tl.where(rows[:, None] >= rows[None, :], exponent, float("-inf")))


@triton.jit
def decays_to_end(high, low, rows, C: tl.constexpr):
    """(C,): the decay from each step to the end of the chunk."""
    last = rows == C - 1
    return tl.exp2((tl.sum(tl.where(last, high, 0.0), 0) - high) + (tl.sum(tl.where(last, low, 0.0), 0) - low))


@triton.jit
def load_factors(factors, rows, C: tl.constexpr):
    """What a walk needs of `inside`'s factors, as rows (1, C): γ, the decay until the chunk's end, β; and γ_C."""
    since = tl.load(factors + rows)[None, :]
    until = tl.load(factors + C + rows)[None, :]
    return since, until, tl.load(factors + 2 * C + rows)[None, :], tl.load(factors + C - 1)


@triton.jit
def head_tile(
    x, stride, sequence, first, at, head, column, rows, columns, left, LIMIT: tl.constexpr, TMA: tl.constexpr
):  # fmt: skip
    """(rows, columns) of one head from a step of a sequence and a column on; 0 beyond `left` rows and LIMIT columns.

    x is with TMA (Hopper's copy engine) a descriptor of (B, L, heads, LIMIT), else a pointer to rows `stride` apart.
    """
    if TMA:
        value = tl.reshape(x.load([sequence, at, head, column]), (rows.shape[0], columns.shape[0]))
    else:
        value = tile(x + (first + at) * stride + head * LIMIT, stride, rows, column + columns, left, LIMIT)
    return value


@triton.jit
def matrix_tile(x, place, row, column, rows, columns, R: tl.constexpr, N: tl.constexpr, TMA: tl.constexpr):
    """(rows, columns) of one of many (R, N) matrices from a row and a column on; x as in `head_tile`."""
    if TMA:
        value = tl.reshape(x.load([place.to(tl.int32), row, column]), (rows.shape[0], columns.shape[0]))
    else:
        value = tile(x + place * R * N, N, row + rows, column + columns, R, N)
    return value
