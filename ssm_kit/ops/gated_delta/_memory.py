"""The memory's walk through the chunks of a sequence, forward and backward, with a slice of it in registers.

Few long sequences are cut into segments that walk at the same time. A first pass finds what each segment ends
in when it begins with nothing, and in further slices what becomes of the identity, Ψ: Sᵀ → Sᵀ Ψ + end. In the second
pass a segment puts the memory that reaches it together from those before it (backward in time: after it).
"""

import triton
import triton.language as tl

from ssm_kit.ops._slots import slot_of, span
from ssm_kit.ops.gated_delta._tiles import (
    head_tile,
    load_factors,
    matrix_tile,
    put,
    put_transposed,
    tile_transposed,
)


@triton.jit
def chunks_of(left, segment, segments, C: tl.constexpr):
    """The first chunk of a segment and the one after its last; a short sequence has empty segments."""
    chunks = tl.cdiv(left, C)
    each = tl.cdiv(chunks, segments)
    return tl.minimum(segment * each, chunks), tl.minimum(segment * each + each, chunks)


@triton.jit
def inherited(
    S, ends, across, row, part, segment, segments, dtype: tl.constexpr, SLICES: tl.constexpr, REVERSE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """What reaches a segment, from what reaches the first one (REVERSE: the last), Sᵀ (BV, K_PAD).

    ends (rows, segments, SLICES, BV, K_PAD) float32; across, Ψ, (rows, segments, K_PAD, K_PAD).
    """
    BV: tl.constexpr = S.shape[0]
    K: tl.constexpr = S.shape[1]
    wide, keys = tl.arange(0, BV), tl.arange(0, K)
    for n in tl.range(segments - 1 - segment if REVERSE else segment, num_stages=1):
        other = row.to(tl.int64) * segments + (segments - 1 - n if REVERSE else n)
        end = tl.load(ends + ((other * SLICES + part) * BV + wide[:, None]) * K + keys[None, :])
        psi = tl.load(across + (other * K + keys[:, None]) * K + keys[None, :]).to(dtype)
        S = end + tl.dot(S.to(dtype), tl.trans(psi) if REVERSE else psi, input_precision=PRECISION)
    return S


@triton.jit
def forward_walk(
    ends, across, q, k, v, factors, scores, resolvent, initial, bounds, o, corrected, states, final, scale,
    length, H, HV, stride_q, stride_k, stride_v,
    K: tl.constexpr, V: tl.constexpr, K_PAD: tl.constexpr, BV: tl.constexpr, C: tl.constexpr, PACKED: tl.constexpr,
    CORRECT: tl.constexpr, WRITE: tl.constexpr, TMA: tl.constexpr, PRECISION: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Outputs and last memory of one sequence and value head, for a slice of BV values.

    Grid (sequences · HV, slices, segments). WRITE = 0: only `ends` and `across` (see `inherited`), and the slices of V
    are followed by those of K. WRITE = 2: also what the backward pass needs, X (steps, HV, V) and Sᵀ before each chunk
    (slots, HV, V, K), both in the dtype of k.
    """
    part, head, sequence = tl.program_id(1), tl.program_id(0) % HV, tl.program_id(0) // HV
    first, left = span(bounds, sequence, length, PACKED)
    slot = slot_of(first, sequence, length, C, PACKED) * HV + head
    rows, keys, wide = tl.arange(0, C), tl.arange(0, K_PAD), tl.arange(0, BV)
    values = part * BV + wide
    place, shared, width = (sequence.to(tl.int64) * HV + head) * K * V, head // (HV // H), HV * V
    segment, segments = tl.program_id(2), tl.num_programs(2)
    begin, stop = chunks_of(left, segment, segments, C)
    SLICES: tl.constexpr = (V + BV - 1) // BV
    S = tl.zeros((BV, K_PAD), tl.float32)
    if WRITE == 0:  # the slices of V come first: their rows are negative here, and begin with nothing
        S = ((values - SLICES * BV)[:, None] == keys[None, :]).to(tl.float32)
    elif initial is not None:
        S = tile_transposed(initial + place, V, keys, values, K, V).to(tl.float32)
    if WRITE and ends is not None:
        dtype: tl.constexpr = o.dtype.element_ty
        S = inherited(S, ends, across, tl.program_id(0), part, segment, segments, dtype, SLICES, False, PRECISION)
    for chunk in tl.range(begin, stop, num_stages=STAGES):
        at, ahead, lot = chunk * C, left - chunk * C, slot + chunk * HV
        since, until, strength, passed = load_factors(factors + lot * 5 * C, rows, C)
        held, token = S.to(o.dtype.element_ty), (first + at) * HV + head
        value = head_tile(v, stride_v, sequence, first, at, head, part * BV, rows, wide, ahead, V, TMA)
        u = tl.trans(value).to(tl.float32)
        key = head_tile(k, stride_k, sequence, first, at, shared, 0, rows, keys, ahead, K, TMA)
        if WRITE:
            query = head_tile(q, stride_q, sequence, first, at, shared, 0, rows, keys, ahead, K, TMA)
            score = matrix_tile(scores, lot, 0, 0, rows, rows, C, C, TMA)
            recalled = tl.dot(held, tl.trans(query), input_precision=PRECISION) * (scale * since)
        if WRITE == 2:
            put(states + lot * V * K, K, values, keys, V, K, held)
        if CORRECT:
            u -= since * tl.dot(held, tl.trans(key), input_precision=PRECISION)
            m = matrix_tile(resolvent, lot, 0, 0, rows, rows, C, C, TMA)
            u -= tl.dot((u * strength).to(held.dtype), tl.trans(m), input_precision=PRECISION)
            if WRITE == 2:
                put_transposed(corrected + token * V, width, rows, values, ahead, V, u)
            u *= strength
        if WRITE:
            recalled += tl.dot(u.to(held.dtype), tl.trans(score), input_precision=PRECISION)
            put_transposed(o + token * V, width, rows, values, ahead, V, recalled)
        S = passed * S + tl.dot((u * until).to(held.dtype), key, input_precision=PRECISION)
    if WRITE == 0:
        other = tl.program_id(0).to(tl.int64) * segments + segment
        if part < SLICES:
            put(ends + (other * SLICES + part) * BV * K_PAD, K_PAD, wide, keys, BV, K_PAD, S)
        else:
            put(across + other * K_PAD * K_PAD, K_PAD, values - SLICES * BV, keys, K_PAD, K_PAD, S)
    elif segment == segments - 1:
        put_transposed(final + place, V, keys, values, K, V, S)


@triton.jit
def backward_walk(
    ends, across, q, k, factors, scores, resolvent, do, dfinal, bounds, dy, dv, dstates, dinitial, scale,
    length, H, HV, stride_q, stride_k,
    K: tl.constexpr, V: tl.constexpr, K_PAD: tl.constexpr, BV: tl.constexpr, C: tl.constexpr, PACKED: tl.constexpr,
    CORRECT: tl.constexpr, WRITE: tl.constexpr, TMA: tl.constexpr, PRECISION: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """The memory's gradient, from the last chunk to the first, for a slice of BV values.

    Grid (sequences · HV, slices, segments). WRITE = 0: only `ends`. Else dY (with CORRECT) and dV = β dY (steps, HV,
    V), the gradient of Sᵀ after each chunk (slots, HV, V, K), and that of the initial state.
    """
    part, head, sequence = tl.program_id(1), tl.program_id(0) % HV, tl.program_id(0) // HV
    first, left = span(bounds, sequence, length, PACKED)
    slot = slot_of(first, sequence, length, C, PACKED) * HV + head
    rows, keys, wide = tl.arange(0, C), tl.arange(0, K_PAD), tl.arange(0, BV)
    values = part * BV + wide
    place, shared, width = (sequence.to(tl.int64) * HV + head) * K * V, head // (HV // H), HV * V
    segment, segments = tl.program_id(2), tl.num_programs(2)
    begin, stop = chunks_of(left, segment, segments, C)
    SLICES: tl.constexpr = (V + BV - 1) // BV
    dS = tl.zeros((BV, K_PAD), tl.float32)
    if WRITE:
        dS = tile_transposed(dfinal + place, V, keys, values, K, V).to(tl.float32)
        if ends is not None:
            dtype: tl.constexpr = dv.dtype.element_ty
            dS = inherited(dS, ends, across, tl.program_id(0), part, segment, segments, dtype, SLICES, True, PRECISION)
    for done in tl.range(stop - begin, num_stages=STAGES):
        chunk = stop - 1 - done
        at, ahead, lot = chunk * C, left - chunk * C, slot + chunk * HV
        since, until, strength, passed = load_factors(factors + lot * 5 * C, rows, C)
        wanted, token = dS.to(dv.dtype.element_ty), (first + at) * HV + head
        if WRITE:
            put(dstates + lot * V * K, K, values, keys, V, K, wanted)
        given = tl.trans(head_tile(do, width, sequence, first, at, head, part * BV, rows, wide, ahead, V, TMA))
        key = head_tile(k, stride_k, sequence, first, at, shared, 0, rows, keys, ahead, K, TMA)
        query = head_tile(q, stride_q, sequence, first, at, shared, 0, rows, keys, ahead, K, TMA)
        score = matrix_tile(scores, lot, 0, 0, rows, rows, C, C, TMA)
        du = tl.dot(wanted, tl.trans(key), input_precision=PRECISION) * until
        du += tl.dot(given, score, input_precision=PRECISION)
        read = (given.to(tl.float32) * (scale * since)).to(wanted.dtype)
        dS = passed * dS + tl.dot(read, query, input_precision=PRECISION)
        if CORRECT:
            m = matrix_tile(resolvent, lot, 0, 0, rows, rows, C, C, TMA)
            du -= tl.dot((du * strength).to(wanted.dtype), m, input_precision=PRECISION)
            if WRITE:
                put_transposed(dy + token * V, width, rows, values, ahead, V, du)
            erased = (du * (strength * since)).to(wanted.dtype)
            dS -= tl.dot(erased, key, input_precision=PRECISION)
        if WRITE:
            put_transposed(dv + token * V, width, rows, values, ahead, V, du * strength)
    if WRITE == 0:
        other = (tl.program_id(0).to(tl.int64) * segments + segment) * SLICES + part
        put(ends + other * BV * K_PAD, K_PAD, wide, keys, BV, K_PAD, dS)
    elif segment == 0:
        put_transposed(dinitial + place, V, keys, values, K, V, dS)
