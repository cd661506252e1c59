"""The gradients of queries, keys, decays and strengths, chunk by chunk, all chunks at once."""

import triton
import triton.language as tl

from ssm_kit.ops.gated_delta._tiles import (
    FORGETS,
    chunk_of,
    decays_between,
    head_tile,
    matrix_tile,
    put,
    put_transposed,
)


@triton.jit
def over_values(
    corrected, states, do, dy, dstates, stride, sequence, first, at, left, head, place, part,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr,
    GATED: tl.constexpr, CORRECT: tl.constexpr, PRECISION: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """The sums over values: dO Xᵀ, dY Xᵀ (C, C), dO Sᵀ (C, BK), dS Xᵀ, S dYᵀ (BK, C), and that of S ∘ dS."""
    rows, keys, values = tl.arange(0, C), tl.arange(0, BK), tl.arange(0, BV)
    dot_ox, dot_yx = tl.zeros((C, C), tl.float32), tl.zeros((C, C), tl.float32)
    read, kept = tl.zeros((C, BK), tl.float32), tl.zeros((BK, C), tl.float32)
    erased, dpassed = tl.zeros((BK, C), tl.float32), 0.0
    for n in tl.range(0, V, BV, num_stages=STAGES):
        given = head_tile(do, stride, sequence, first, at, head, n, rows, values, left, V, False)
        x = head_tile(corrected, stride, sequence, first, at, head, n, rows, values, left, V, False)
        state = matrix_tile(states, place, n, part * BK, values, keys, V, K, False)
        dstate = matrix_tile(dstates, place, n, part * BK, values, keys, V, K, False)
        dot_ox += tl.dot(given, tl.trans(x), input_precision=PRECISION)
        read += tl.dot(given, state, input_precision=PRECISION)
        kept += tl.dot(tl.trans(dstate), tl.trans(x), input_precision=PRECISION)
        if CORRECT:
            y = head_tile(dy, stride, sequence, first, at, head, n, rows, values, left, V, False)
            dot_yx += tl.dot(y, tl.trans(x), input_precision=PRECISION)
            erased += tl.dot(tl.trans(state), tl.trans(y), input_precision=PRECISION)
        if GATED:
            dpassed += tl.sum(tl.sum(state.to(tl.float32) * dstate.to(tl.float32), 0), 0)
    return dot_ox, dot_yx, read, kept, erased, dpassed


@triton.jit
def gradients(
    q, k, g, factors, corrected, states, do, dy, dstates, bounds, sequence_of, dq, dk, dg, dbeta,
    scale, length, tokens, H, HV, stride_q, stride_k, stride_g,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, C: tl.constexpr, PACKED: tl.constexpr,
    GATED: tl.constexpr, CORRECT: tl.constexpr, PRECISION: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """One chunk of one value head and a slice of BK key entries: what `backward_walk` left to do.

    Grid (slots · key slices, HV). dq, dk (steps, HV, K), to be summed over the value heads that share a key; dg (key
    slices, steps, HV) float32, to be summed over slices; dbeta (steps, HV) float32. No product is transposed in
    registers to become a left operand: Triton 3.4 to 3.7.0 compiles that wrongly for Hopper (fla #640, #984).
    """
    parts: tl.constexpr = (K + BK - 1) // BK
    part, slot, head = tl.program_id(0) % parts, (tl.program_id(0) // parts).to(tl.int64), tl.program_id(1)
    sequence, first, at, left = chunk_of(bounds, sequence_of, slot, length, C, PACKED)
    if PACKED:  # noqa: SIM102 (Triton leaves the inner one out where this one is false)
        if left <= 0:  # an unused slot: nobody wrote its memories
            return
    rows, keys = tl.arange(0, C), tl.arange(0, BK)
    shared, place = head // (HV // H), slot * HV + head
    factors += place * 5 * C
    key = head_tile(k, stride_k, sequence, first, at, shared, part * BK, rows, keys, left, K, False)
    query = head_tile(q, stride_q, sequence, first, at, shared, part * BK, rows, keys, left, K, False)
    dot_ox, dot_yx, read, kept, erased, dpassed = over_values(
        corrected, states, do, dy, dstates, HV * V, sequence, first, at, left, head, place, part,
        K, V, BK, BV, C, GATED, CORRECT, PRECISION, STAGES,
    )  # fmt: skip
    token = (first + at) * HV + head
    strength = tl.load(factors + 2 * C + rows)
    high, low = tl.load(factors + 3 * C + rows), tl.load(factors + 4 * C + rows)
    decay = decays_between(high, low, rows, PRECISION != "tf32") * strength[None, :]
    dscores = (scale * dot_ox * decay).to(key.dtype)
    dkey = tl.dot(tl.trans(query), dscores, input_precision=PRECISION)
    pairs = dscores.to(tl.float32) * tl.dot(query, tl.trans(key), input_precision=PRECISION)
    if CORRECT:
        same = rows[:, None] == rows[None, :]
        dstrength = tl.sum(tl.where(same, dot_yx, 0.0), 1)
        tl.store(dbeta + token + rows * HV, dstrength, mask=(rows < left) & (part == 0))
        dlower = tl.where(same, 0.0, dot_yx * decay * strength[:, None]).to(key.dtype)
        dkey -= tl.dot(tl.trans(key), dlower, input_precision=PRECISION)
        dkey -= tl.dot(tl.trans(key), tl.trans(dlower), input_precision=PRECISION)
        pairs -= dlower.to(tl.float32) * tl.dot(key, tl.trans(key), input_precision=PRECISION)
    pairs = tl.where(rows[:, None] > rows[None, :], pairs, 0.0)
    dlog = tl.sum(pairs, 1) - tl.sum(pairs, 0)

    read *= (scale * tl.load(factors + rows))[:, None]
    dlog += tl.sum(read * query.to(tl.float32), 1)
    read += tl.dot(dscores, key, input_precision=PRECISION)
    put(dq + token * K, HV * K, rows, part * BK + keys, left, K, read)
    if CORRECT:
        erased *= (strength * tl.load(factors + rows))[None, :]
        dkey -= erased
        dlog -= tl.sum(erased * tl.trans(key).to(tl.float32), 0)
    kept *= (strength * tl.load(factors + C + rows))[None, :]
    put_transposed(dk + token * K, HV * K, rows, part * BK + keys, left, K, dkey + kept)
    if GATED:
        lost = tl.sum(kept * tl.trans(key).to(tl.float32), 0)
        tail = tl.sum(lost, 0) + tl.load(factors + C - 1) * dpassed
        dlog += tl.where(rows == C - 1, tail, 0.0) - lost
        raw = tl.load(g + (first + at + rows) * stride_g + head, mask=rows < left, other=0.0).to(tl.float32)
        dlog = tl.where(raw > FORGETS, tl.cumsum(dlog, 0, reverse=True), 0.0)
        tl.store(dg + part * tokens * HV + token + rows * HV, dlog, mask=rows < left)
