"""The gradients of queries, keys, values, decays and strengths, chunk by chunk, all chunks at once."""

import triton
import triton.language as tl

from ssm_kit.ops.gated_delta._tiles import (
    chunk_of,
    decays_between,
    log_decays,
    put,
    put_transposed,
    tile,
)


@triton.jit
def gradients(
    q, k, g, factors, scores, corrected, states, do, dwritten, dstates, bounds, sequence_of, dq, dk, dv, dg, dbeta,
    scale, length, H, HV, stride_q, stride_k, stride_g,
    K: tl.constexpr, V: tl.constexpr, K_PAD: tl.constexpr, BV: tl.constexpr, C: tl.constexpr, PACKED: tl.constexpr,
    GATED: tl.constexpr, CORRECT: tl.constexpr, PRECISION: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """One chunk of one value head: what `backward_walk` left to do.

    Grid (slots, HV). dq, dk (steps, HV, K), to be summed over the value heads that share a key; dv (steps, HV, V);
    dg, dbeta (steps, HV) float32. Transposed operands stand on the right or come from memory: a product's result in
    float16, transposed, as the left operand of the next is compiled wrongly for Hopper by Triton 3.4 to 3.7.0.
    """
    slot, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    step, left = chunk_of(bounds, sequence_of, slot, length, C, PACKED)
    rows, keys = tl.arange(0, C), tl.arange(0, K_PAD)
    shared, place = head // (HV // H), slot * HV + head
    token, written = step * HV + head, (step * HV + head) * V
    dot_ou, dot_ru = tl.zeros((C, C), tl.float32), tl.zeros((C, C), tl.float32)
    read, kept, erased = (
        tl.zeros((C, K_PAD), tl.float32),
        tl.zeros((K_PAD, C), tl.float32),
        tl.zeros((K_PAD, C), tl.float32),
    )
    dstrength, dpassed = tl.zeros((C,), tl.float32), tl.zeros((K_PAD,), tl.float32)
    factors += place * 3 * C
    strength = tl.load(factors + 2 * C + rows)
    for part in tl.range(tl.cdiv(V, BV), num_stages=STAGES):
        values = part * BV + tl.arange(0, BV)
        given = tile(do + written, HV * V, rows, values, left, V)
        u = tile(corrected + written, HV * V, rows, values, left, V)
        state = tile(states + place * V * K, K, values, keys, V, K)
        dstate = tile(dstates + place * V * K, K, values, keys, V, K)
        if CORRECT:
            dy = tile(dwritten + written, HV * V, rows, values, left, V).to(tl.float32)
            dstrength += tl.sum(u.to(tl.float32) * dy, 1)
            dr = (dy * strength[:, None]).to(u.dtype)
            u = (u.to(tl.float32) * strength[:, None]).to(u.dtype)
            put(dv + written, HV * V, rows, values, left, V, dr)
            dot_ru += tl.dot(dr, tl.trans(u), input_precision=PRECISION)
            erased += tl.dot(tl.trans(state), tl.trans(dr), input_precision=PRECISION)
        dot_ou += tl.dot(given, tl.trans(u), input_precision=PRECISION)
        read += tl.dot(given, state, input_precision=PRECISION)
        kept += tl.dot(tl.trans(dstate), tl.trans(u), input_precision=PRECISION)
        if GATED:
            dpassed += tl.sum(state.to(tl.float32) * dstate.to(tl.float32), 0)

    key = tile(k + step * stride_k + shared * K, stride_k, rows, keys, left, K)
    query = tile(q + step * stride_q + shared * K, stride_q, rows, keys, left, K)
    turned = tl.trans(key).to(tl.float32)
    decay = (rows[:, None] >= rows[None, :]).to(tl.float32)
    earlier = rows[:, None] > rows[None, :]
    read *= scale
    if GATED:
        high, low = log_decays(g + step * stride_g + head, stride_g, rows, left)
        decay = decays_between(high, low, rows)
        read *= tl.load(factors + rows)[:, None]
        kept *= tl.load(factors + C + rows)[None, :]
        erased *= tl.load(factors + rows)[None, :]
        lost = tl.sum(kept * turned, 0)
        pairs = tl.where(earlier, dot_ou * tile(scores + place * C * C, C, rows, rows, C, C).to(tl.float32), 0.0)
        dlog = tl.sum(read * query.to(tl.float32), 1) - lost - tl.sum(erased * turned, 0)
        tail = tl.sum(lost, 0) + tl.load(factors + C - 1) * tl.sum(dpassed, 0)
    dscores = (scale * dot_ou * decay).to(key.dtype)
    dkey = kept - erased + tl.dot(tl.trans(query), dscores, input_precision=PRECISION)
    if CORRECT:
        dlower = tl.where(earlier, dot_ru * decay, 0.0)
        if GATED:
            pairs -= dlower * tl.dot(key, tl.trans(key), input_precision=PRECISION)
        dlower = dlower.to(key.dtype)
        dkey -= tl.dot(tl.trans(key), dlower, input_precision=PRECISION)
        dkey -= tl.dot(tl.trans(key), tl.trans(dlower), input_precision=PRECISION)
        tl.store(dbeta + token + rows * HV, dstrength, mask=rows < left)
    read += tl.dot(dscores, key, input_precision=PRECISION)
    put(dq + token * K, HV * K, rows, keys, left, K, read)
    put_transposed(dk + token * K, HV * K, rows, keys, left, K, dkey)
    if GATED:
        dlog += tl.sum(pairs, 1) - tl.sum(pairs, 0) + tl.where(rows == C - 1, tail, 0.0)
        raw = tl.load(g + (step + rows) * stride_g + head, mask=rows < left, other=0.0).to(tl.float32)
        tl.store(dg + token + rows * HV, tl.where(raw > -1e4, tl.cumsum(dlog, 0, reverse=True), 0.0), mask=rows < left)
