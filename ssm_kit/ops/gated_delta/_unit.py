"""Rows divided by their length, x / sqrt(|x|² + ε), and the gradient of that."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ssm_kit.ops.gated_delta._arguments import EPSILON


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


@torch.library.custom_op("ssm_kit::unit_rows", mutates_args=())
def unit_rows(x: Tensor) -> Tensor:
    """x (..., K) with rows of length one, in its dtype; differentiable once."""
    x = x.contiguous()
    y = torch.empty_like(x)
    forward[_row_grid(x)](x, y, x.numel() // x.shape[-1], EPSILON, **_row_block(x))
    return y


@torch.library.custom_op("ssm_kit::unit_rows_backward", mutates_args=())
def unit_rows_backward(dy: Tensor, x: Tensor) -> Tensor:
    dy, x = dy.contiguous(), x.contiguous()
    dx = torch.empty_like(x)
    backward[_row_grid(x)](x, dy, dx, x.numel() // x.shape[-1], EPSILON, **_row_block(x))
    return dx


def _row_block(x: Tensor) -> dict[str, int]:
    width = triton.next_power_of_2(x.shape[-1])
    return {"K": x.shape[-1], "K_PAD": width, "ROWS": max(1, 4096 // width)}


def _row_grid(x: Tensor) -> tuple[int]:
    return (triton.cdiv(x.numel() // x.shape[-1], _row_block(x)["ROWS"]),)


@unit_rows.register_fake
def _(x):
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@unit_rows_backward.register_fake
def _(dy, x):
    return torch.empty_like(x, memory_format=torch.contiguous_format)


unit_rows.register_autograd(
    lambda ctx, dy: unit_rows_backward(dy, *ctx.saved_tensors),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)
