"""What a chunk needs no memory for: its decays, its scores, and the solution of its triangular system.

With L = strictly lower part of Γ ∘ K Kᵀ, the corrected values X solve (I + L diag(β)) X = R = V − diag(γ) K S, and what
is written is U = diag(β) X. Kept is M = (I + L diag(β))⁻¹ L: it serves both directions and has no quotient of β.

    X = R − M (β R)                forward
    dY = dU − Mᵀ (β dU)            backward, dU the gradient of U and β dY that of R

The blocks of 16 on the diagonal are inverted by substitution, which is stable, the rest follows by products: with
D = diag(blocks)⁻¹ and N = D (L diag(β)) outside the blocks, (I + L diag(β))⁻¹ = (I + N)⁻¹ D, and N⁴ = 0 for 64 steps.
"""

import triton
import triton.language as tl

from ssm_kit.ops.gated_delta._tiles import (
    chunk_of,
    decays_between,
    decays_to_end,
    log_decays,
    put,
    tile,
)


@triton.jit
def inside(
    q, k, g, beta, bounds, sequence_of, scores, resolvent, factors, scale, length, H, HV, stride_q, stride_k,
    stride_g, stride_beta, K: tl.constexpr, K_PAD: tl.constexpr, C: tl.constexpr,
    PACKED: tl.constexpr, GATED: tl.constexpr, CORRECT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One chunk of one value head: scale · Γ ∘ Q Kᵀ, M, and the decays γ since its start and until its end.

    Grid (slots, HV). q, k (steps, H, K); g, beta (steps, HV); scores, resolvent (slots, HV, C, C) in the dtype of k;
    factors (slots, HV, 5, C) float32: γ, the decay until the chunk's end, β, log2 γ in two parts. `stride_*` is the
    distance between two steps.
    """
    slot, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    _, first, at, left = chunk_of(bounds, sequence_of, slot, length, C, PACKED)
    step = first + at
    rows, columns = tl.arange(0, C), tl.arange(0, K_PAD)
    shared = head // (HV // H)
    keys = tile(k + step * stride_k + shared * K, stride_k, rows, columns, left, K)
    queries = tile(q + step * stride_q + shared * K, stride_q, rows, columns, left, K)
    place = (slot * HV + head) * C * C
    strength = tl.full((C,), 1.0, tl.float32)
    if CORRECT:
        strength = tl.load(beta + (step + rows) * stride_beta + head, mask=rows < left, other=0.0).to(tl.float32)
    high, low = tl.zeros((C,), tl.float32), tl.zeros((C,), tl.float32)
    if GATED:
        high, low = log_decays(g + step * stride_g + head, stride_g, rows, left)
    decay = decays_between(high, low, rows, PRECISION != "tf32")
    factors += (slot * HV + head) * 5 * C + rows
    tl.store(factors, tl.exp2(high))
    tl.store(factors + C, decays_to_end(high, low, rows, C))
    tl.store(factors + 2 * C, strength)
    tl.store(factors + 3 * C, high)
    tl.store(factors + 4 * C, low)
    product = tl.dot(queries, tl.trans(keys), input_precision=PRECISION)
    put(scores + place, C, rows, rows, C, C, product * decay * scale)
    if CORRECT:
        overlap = tl.dot(keys, tl.trans(keys), input_precision=PRECISION) * decay
        lower = tl.where(rows[:, None] > rows[None, :], overlap, 0.0)
        put(resolvent + place, C, rows, rows, C, C, resolve(lower, strength, C, PRECISION))


@triton.jit
def resolve(lower, strength, C: tl.constexpr, PRECISION: tl.constexpr):
    """(I + L diag(β))⁻¹ L (C, C) in float32."""
    block = tl.arange(0, C) // 16
    other = block[:, None] != block[None, :]
    product = tl.dot(invert_blocks(lower * strength[None, :], C), lower, input_precision=PRECISION)  # D L
    if C > 16:
        outside = tl.where(other, product * strength[None, :], 0.0)  # N
        if C > 32:  # (I + N)⁻¹ = (I − N) (I + N²)
            twice = tl.dot(outside, product, input_precision=PRECISION)
            product += tl.dot(outside, twice, input_precision=PRECISION)
        product -= tl.dot(outside, product, input_precision=PRECISION)
    return product


@triton.jit
def invert_blocks(lower, C: tl.constexpr):
    """diag((I + A_11)⁻¹, (I + A_22)⁻¹, ...) of the blocks of 16 on the diagonal of A (C, C), row by row."""
    B: tl.constexpr = C // 16
    which, at = tl.arange(0, B), tl.arange(0, 16)
    same = which[:, None, None, None] == which[None, None, :, None]
    blocks = tl.sum(tl.where(same, tl.reshape(lower, (B, 16, B, 16)), 0.0), axis=2)  # (B, 16, 16)
    columns = tl.permute(blocks, (0, 2, 1))
    inverse = tl.broadcast_to((at[:, None] == at[None, :]).to(tl.float32)[None], (B, 16, 16))
    for row in range(1, 16):
        coefficients = tl.sum(tl.where(at[None, None, :] == row, columns, 0.0), axis=2)  # (B, 16): A's row
        change = tl.sum(coefficients[:, :, None] * inverse, axis=1)
        inverse = tl.where(at[None, :, None] == row, inverse - change[:, None, :], inverse)
    whole = tl.where(same, tl.broadcast_to(inverse[:, :, None, :], (B, 16, B, 16)), 0.0)
    return tl.reshape(whole, (C, C))
