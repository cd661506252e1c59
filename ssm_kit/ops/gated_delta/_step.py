"""One step of the delta rules, bound by memory: the state is read once and written once."""

import triton
import triton.language as tl


@triton.jit
def step(
    q, k, v, g, beta, state, o, following, scale, H, HV, epsilon,
    K: tl.constexpr, V: tl.constexpr, K_PAD: tl.constexpr, BV: tl.constexpr, UNIT: tl.constexpr,
):  # fmt: skip
    """One memory (batch entry and value head), a slice of BV values: S ← α S, S ← S + k (β (v − Sᵀ k))ᵀ, o = Sᵀ q.

    Grid (B · HV, slices). q, k (B, H, K), v, o (B, HV, V), g, beta (B, HV) or None, states (B, HV, K, V) float32; with
    UNIT, queries and keys are divided by their length first.
    """
    row = tl.program_id(0).to(tl.int64)
    keys, values = tl.arange(0, K_PAD), tl.program_id(1) * BV + tl.arange(0, BV)
    shared = (row // HV * H + row % HV // (HV // H)) * K
    place = row * K * V + keys[:, None] * V + values[None, :]
    mask = (keys < K)[:, None] & (values < V)[None, :]
    S = tl.load(state + place, mask=mask, other=0.0).to(tl.float32)
    key = tl.load(k + shared + keys, mask=keys < K, other=0.0).to(tl.float32)
    query = tl.load(q + shared + keys, mask=keys < K, other=0.0).to(tl.float32)
    u = tl.load(v + row * V + values, mask=values < V, other=0.0).to(tl.float32)
    if UNIT:
        key *= tl.rsqrt(tl.sum(key * key, 0) + epsilon)
        query *= tl.rsqrt(tl.sum(query * query, 0) + epsilon)
    if g is not None:
        S *= tl.exp(tl.load(g + row).to(tl.float32))
    if beta is not None:
        u = tl.load(beta + row).to(tl.float32) * (u - tl.sum(S * key[:, None], 0))
    S += key[:, None] * u[None, :]
    tl.store(following + place, S, mask=mask)
    tl.store(o + row * V + values, (scale * tl.sum(S * query[:, None], 0)).to(o.dtype.element_ty), mask=values < V)
