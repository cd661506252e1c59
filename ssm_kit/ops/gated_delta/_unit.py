"""Rows divided by their length, x / sqrt(|x|² + ε), and the gradient of that."""

import triton
import triton.language as tl


@triton.jit
def forward(x, y, count, epsilon, K: tl.constexpr, K_PAD: tl.constexpr, ROWS: tl.constexpr):
    """x, y (count, K)."""
    rows, columns = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS), tl.arange(0, K_PAD)
    place, mask = rows[:, None] * K + columns[None, :], (rows < count)[:, None] & (columns < K)[None, :]
    value = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
    value *= tl.rsqrt(tl.sum(value * value, 1) + epsilon)[:, None]
    tl.store(y + place, value.to(y.dtype.element_ty), mask=mask)


@triton.jit
def backward(x, dy, dx, count, epsilon, K: tl.constexpr, K_PAD: tl.constexpr, ROWS: tl.constexpr):
    """dx = r (dy − y (y · dy)) for y = r x."""
    rows, columns = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS), tl.arange(0, K_PAD)
    place, mask = rows[:, None] * K + columns[None, :], (rows < count)[:, None] & (columns < K)[None, :]
    value = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
    gradient = tl.load(dy + place, mask=mask, other=0.0).to(tl.float32)
    factor = tl.rsqrt(tl.sum(value * value, 1) + epsilon)[:, None]
    value *= factor
    gradient = factor * (gradient - value * tl.sum(value * gradient, 1)[:, None])
    tl.store(dx + place, gradient.to(dx.dtype.element_ty), mask=mask)
