"""The Triton kernel of SSD's decoding step: one read and one write of the state, and next to nothing else."""

import triton
import triton.language as tl

from ssm_kit.ops.ssd._tiles import LOG2_E, softplus


@triton.jit
def step(
    state, x, delta, A, B, C, D, z, bias, y, after,
    heads, per_group, stride_x, stride_delta, stride_B, stride_C, stride_z,
    P: tl.constexpr, N: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr, SKIP: tl.constexpr,
    SOFTPLUS: tl.constexpr,
):  # fmt: skip
    """h ← exp(ΔA) h + Δ x Bᵀ, y = h C + D x, gated; grid (batch × heads, P / BLOCK_P). `after` receives the state."""
    row = tl.program_id(0).to(tl.int64)
    batch, head = row // heads, row % heads
    p, n = tl.program_id(1) * BLOCK_P + tl.arange(0, BLOCK_P), tl.arange(0, BLOCK_N)
    fits = (p < P)[:, None] & (n < N)[None, :]
    entries = row * P * N + p[:, None] * N + n[None, :]
    h = tl.load(state + entries, mask=fits, other=0.0).to(tl.float32)
    value = tl.load(delta + batch * stride_delta + head).to(tl.float32)
    if bias is not None:
        value += tl.load(bias + head).to(tl.float32)
    if SOFTPLUS:
        value = softplus(value)
    x_row = tl.load(x + batch * stride_x + head * P + p, mask=p < P, other=0.0).to(tl.float32)
    B_row = tl.load(B + batch * stride_B + head // per_group * N + n, mask=n < N, other=0.0).to(tl.float32)
    C_row = tl.load(C + batch * stride_C + head // per_group * N + n, mask=n < N, other=0.0).to(tl.float32)
    decay = tl.exp2(value * tl.load(A + head).to(tl.float32) * LOG2_E)
    h = h * decay + (value * x_row)[:, None] * B_row[None, :]
    out = tl.sum(h * C_row[None, :], 1)
    tl.store(after + entries, h, mask=fits)
    if SKIP > 0:
        out += x_row * tl.load(D + head * SKIP + (p if SKIP > 1 else 0 * p), mask=p < P, other=0.0).to(tl.float32)
    if z is not None:
        gate = tl.load(z + batch * stride_z + head * P + p, mask=p < P, other=0.0).to(tl.float32)
        out *= gate / (1.0 + tl.exp(-gate))
    tl.store(y + row * P + p, out.to(y.dtype.element_ty), mask=p < P)
