"""The memory's walk through the chunks of a sequence, forward and backward, with a slice of it in registers."""

import triton
import triton.language as tl

from ssm_kit.ops.gated_delta._tiles import load_factors, put, put_transposed, slot_of, span, tile, tile_transposed


@triton.jit
def forward_walk(
    q, k, v, factors, scores, resolvent, initial, bounds, o, corrected, states, final, scale,
    length, H, HV, stride_q, stride_k, stride_v,
    K: tl.constexpr, V: tl.constexpr, K_PAD: tl.constexpr, BV: tl.constexpr, C: tl.constexpr, PACKED: tl.constexpr,
    CORRECT: tl.constexpr, KEEP: tl.constexpr, PRECISION: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Outputs and last memory of one sequence and value head, for a slice of BV values.

    Grid (slices, sequences · HV). With KEEP, what the backward pass needs: X (steps, HV, V), and Sᵀ before each chunk
    (slots, HV, V, K), both in the dtype of k.
    """
    part, head, sequence = tl.program_id(0), tl.program_id(1) % HV, tl.program_id(1) // HV
    step, left = span(bounds, sequence, length, PACKED)
    slot = slot_of(step, sequence, length, C, PACKED) * HV + head
    rows, keys, values = tl.arange(0, C), tl.arange(0, K_PAD), part * BV + tl.arange(0, BV)
    place, shared = (sequence.to(tl.int64) * HV + head) * K * V, head // (HV // H)
    if initial is None:
        S = tl.zeros((BV, K_PAD), tl.float32)
    else:
        S = tile_transposed(initial + place, V, keys, values, K, V).to(tl.float32)
    q += shared * K
    k += shared * K
    v += head * V
    width = HV * V
    for chunk in tl.range(tl.cdiv(left, C), num_stages=STAGES):
        at, ahead = step + chunk * C, left - chunk * C
        lot = slot + chunk * HV
        since, until, strength, passed = load_factors(factors + lot * 3 * C, rows, C)
        held = S.to(k.dtype.element_ty)
        u = tile_transposed(v + at * stride_v, stride_v, rows, values, ahead, V).to(tl.float32)
        key = tile(k + at * stride_k, stride_k, rows, keys, ahead, K)
        query = tile(q + at * stride_q, stride_q, rows, keys, ahead, K)
        score = tile(scores + lot * C * C, C, rows, rows, C, C)
        recalled = tl.dot(held, tl.trans(query), input_precision=PRECISION) * (scale * since)
        if KEEP:
            put(states + lot * V * K, K, values, keys, V, K, held)
        if CORRECT:
            u -= since * tl.dot(held, tl.trans(key), input_precision=PRECISION)
            m = tile(resolvent + lot * C * C, C, rows, rows, C, C)
            u -= tl.dot((u * strength).to(held.dtype), tl.trans(m), input_precision=PRECISION)
            if KEEP:
                put_transposed(corrected + at * width + head * V, width, rows, values, ahead, V, u)
            u *= strength
        recalled += tl.dot(u.to(held.dtype), tl.trans(score), input_precision=PRECISION)
        put_transposed(o + at * width + head * V, width, rows, values, ahead, V, recalled)
        S = passed * S + tl.dot((u * until).to(held.dtype), key, input_precision=PRECISION)
    put_transposed(final + place, V, keys, values, K, V, S)


@triton.jit
def backward_walk(
    q, k, factors, scores, resolvent, do, dfinal, bounds, dwritten, dstates, dinitial, scale,
    length, H, HV, stride_q, stride_k,
    K: tl.constexpr, V: tl.constexpr, K_PAD: tl.constexpr, BV: tl.constexpr, C: tl.constexpr, PACKED: tl.constexpr,
    CORRECT: tl.constexpr, PRECISION: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """The memory's gradient, from the last chunk to the first, for a slice of BV values.

    Grid (slices, sequences · HV). Writes dY (without correction dU = dV) (steps, HV, V), the gradient of Sᵀ after each
    chunk (slots, HV, V, K), and that of the initial state.
    """
    part, head, sequence = tl.program_id(0), tl.program_id(1) % HV, tl.program_id(1) // HV
    step, left = span(bounds, sequence, length, PACKED)
    slot = slot_of(step, sequence, length, C, PACKED) * HV + head
    rows, keys, values = tl.arange(0, C), tl.arange(0, K_PAD), part * BV + tl.arange(0, BV)
    place, shared = (sequence.to(tl.int64) * HV + head) * K * V, head // (HV // H)
    dS = tile_transposed(dfinal + place, V, keys, values, K, V).to(tl.float32)
    q += shared * K
    k += shared * K
    width = HV * V
    chunks = tl.cdiv(left, C)
    for done in tl.range(chunks, num_stages=STAGES):
        chunk = chunks - 1 - done
        at, ahead = step + chunk * C, left - chunk * C
        lot = slot + chunk * HV
        since, until, strength, passed = load_factors(factors + lot * 3 * C, rows, C)
        wanted = dS.to(k.dtype.element_ty)
        put(dstates + lot * V * K, K, values, keys, V, K, wanted)
        given = tile_transposed(do + at * width + head * V, width, rows, values, ahead, V)
        key = tile(k + at * stride_k, stride_k, rows, keys, ahead, K)
        query = tile(q + at * stride_q, stride_q, rows, keys, ahead, K)
        score = tile(scores + lot * C * C, C, rows, rows, C, C)
        du = tl.dot(wanted, tl.trans(key), input_precision=PRECISION) * until
        du += tl.dot(given, score, input_precision=PRECISION)
        read = (given.to(tl.float32) * (scale * since)).to(wanted.dtype)
        dS = passed * dS + tl.dot(read, query, input_precision=PRECISION)
        if CORRECT:
            m = tile(resolvent + lot * C * C, C, rows, rows, C, C)
            du -= tl.dot((du * strength).to(wanted.dtype), m, input_precision=PRECISION)
            erased = (du * (strength * since)).to(wanted.dtype)
            dS -= tl.dot(erased, key, input_precision=PRECISION)
        put_transposed(dwritten + at * width + head * V, width, rows, values, ahead, V, du)
    put_transposed(dinitial + place, V, keys, values, K, V, dS)
