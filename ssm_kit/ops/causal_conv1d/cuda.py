"""The short causal convolution on a GPU, in Triton (`_kernels`).

A program owns a block of channels of one sequence and walks through a segment of its time with the last W inputs, the
taps and all sums in registers, so that every input is read once (and W - 1 of them again where a segment begins). It
asks for several steps of input before the first of them is used, so that enough bytes are on their way.

Bytes at B 8, D 4096, L 4096 in bfloat16: forward reads x and writes y, 0.54 GB; backward reads x and ȳ, computes what
SiLU was applied to again, and writes x̄, 0.81 GB. At the 4274 GB/s of an H200's copy: 0.126 and 0.188 ms. Forward
takes 4 multiply-adds and one exponential a number, backward 12 and one, which is half of that time.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from ssm_kit.ops._autograd import custom_operator, with_gradients
from ssm_kit.ops._gpu import processors, unsupported_dtype, with_dense_channels
from ssm_kit.ops.causal_conv1d import _kernels

TAPS = 16
"""Taps that a program's registers hold."""


def unsupported(x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None) -> str | None:
    """Why the kernels cannot serve this call, or None."""
    if weight.shape[1] > TAPS:
        return f"the kernels hold at most {TAPS} taps; got {weight.shape[1]}"
    return unsupported_dtype(x, weight, bias, initial_state)


class Plan(NamedTuple):
    """How the work is cut: programs of `warps` warps, `block` channels, `rows` steps at a time, time in segments."""

    rows: int
    block: int
    warps: int
    segment_length: int


def plan(x: Tensor, gradient: bool) -> Plan:
    """The cut for x (B, L, D), measured on an H200: long segments for the gradient, which leaves sums for each."""
    batch, length, channels = x.shape
    programs = batch * triton.cdiv(length, 512) * triton.cdiv(channels, 128)
    busy = programs >= 8 * processors(x.device)
    return Plan(4, 128, 1, 512 if gradient and busy else 128)


def _launch(cut: Plan, x: Tensor, weight: Tensor, bounds: Tensor | None, silu: bool) -> tuple[Any, ...]:
    """Number of programs, segments, and the arguments that both kernels take."""
    batch, length, channels = x.shape
    segments = triton.cdiv(length, cut.segment_length)
    sizes = (length, 0 if bounds is None else len(bounds) - 1, segments, cut.segment_length)
    known = {"channels": channels, "x_time": x.stride(1), "SILU": silu, "WIDTH": weight.shape[1]}
    known |= {"ROWS": cut.rows, "BLOCK": cut.block, "num_warps": cut.warps}
    return (batch * segments * triton.cdiv(channels, cut.block),), segments, sizes, known


def _dense(*tensors: Tensor | None) -> Iterator[Any]:
    return (tensor if tensor is None else tensor.contiguous() for tensor in tensors)


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial: Tensor | None, bounds: Tensor | None, silu: bool
) -> Tensor:
    """y (B, L, D) in the dtype of x."""
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    x, cut = with_dense_channels(x), plan(x, False)
    weight, bias, initial, bounds = _dense(weight, bias, initial, bounds)
    grid, _, sizes, known = _launch(cut, x, weight, bounds, silu)
    with torch.cuda.device_of(x):
        _kernels.forward[grid](x, weight, bias, initial, bounds, y, *sizes, x.stride(0), **known)
    return y


def backward(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial: Tensor | None, bounds: Tensor | None, dy: Tensor,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of x (B, L, D) in its dtype, of weight (D, W) and of bias (D,) in float32."""
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    x, dy, cut = with_dense_channels(x), with_dense_channels(dy), plan(x, True)
    weight, bias, initial, bounds = _dense(weight, bias, initial, bounds)
    grid, segments, sizes, known = _launch(cut, x, weight, bounds, silu)
    batch, _, channels = x.shape
    partials = torch.empty((batch * segments, weight.shape[1] + 1, channels), device=x.device)
    sizes += (x.stride(0), dy.stride(0))
    known |= {"dy_time": dy.stride(1)}
    with torch.cuda.device_of(x):
        _kernels.backward[grid](x, weight, bias, initial, bounds, dy, dx, partials, *sizes, **known)
    sums = partials.sum(0)  # in one order, whatever the order in which the programs ran
    return dx, sums[:-1].T.contiguous(), sums[-1].clone()


def _fake_forward(x: Tensor, *_: Any) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def _fake_backward(x: Tensor, weight: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    return dx, torch.empty_like(weight, dtype=torch.float32), weight.new_empty(len(weight), dtype=torch.float32)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.silu = inputs
    ctx.save_for_backward(*tensors)


def _gradients(backward: Callable[..., Any], ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, bias, initial, bounds = ctx.saved_tensors
    dx, dweight, dbias = backward(x, weight, bias, initial, bounds, dy, ctx.silu)
    dinitial = None
    if ctx.needs_input_grad[3]:
        dinitial = _initial_gradient(x, weight, bias, initial, bounds, dy, ctx.silu)
    return dx, dweight.to(weight.dtype), None if bias is None else dbias.to(bias.dtype), dinitial, None, None


def _initial_gradient(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial: Tensor, bounds: Tensor | None, dy: Tensor, silu: bool
) -> Tensor:
    """The first W - 1 steps again, by torch, for all sequences: nothing later meets the initial state."""
    width = weight.shape[1]
    first, exists, row = _steps(x, bounds, torch.arange(width - 1, device=x.device))
    taps = weight.float()
    padded = torch.cat([initial.float(), x[row, first].float()], dim=1)  # (S, 2 (W - 1), D)
    du = dy[row, first].float() * exists[..., None]
    if silu:
        u = torch.zeros_like(du) if bias is None else bias.float().expand(du.shape)
        for k in range(width):
            u = u + taps[:, k] * padded[:, k : k + width - 1]
        gate = torch.sigmoid(u)
        du = du * gate * (1 + u * (1 - gate))
    gradient = torch.zeros_like(initial, dtype=torch.float32)
    for k in range(width - 1):  # u_t has tap k on row t + k of the initial state
        gradient[:, k:] += taps[:, k] * du[:, : width - 1 - k]
    return gradient.to(initial.dtype)


def _steps(x: Tensor, bounds: Tensor | None, offsets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Steps at these offsets from where each sequence begins (or, if negative, ends): (S, ...) in time.

    Returns the steps, made valid where they lie outside of their sequence; whether they lie inside; the batch row.
    """
    batch, length, _ = x.shape
    if bounds is None:
        begin, end = offsets.new_zeros(batch, 1), offsets.new_full((batch, 1), length)
        row = torch.arange(batch, device=x.device)[:, None]
    else:
        begin, end = bounds[:-1, None].long(), bounds[1:, None].long()
        row = torch.zeros_like(begin)
    steps = torch.where(offsets < 0, end, begin) + offsets
    inside = (steps >= begin) & (steps < end)
    return steps.clamp(0, length - 1), inside, row


_FORWARD = custom_operator(
    "causal_conv1d_forward",
    "(Tensor x, Tensor weight, Tensor? bias, Tensor? initial, Tensor? bounds, bool silu) -> Tensor",
    forward, _fake_forward,
)  # fmt: skip
_BACKWARD = custom_operator(
    "causal_conv1d_backward",
    "(Tensor x, Tensor weight, Tensor? bias, Tensor? initial, Tensor? bounds, Tensor dy, bool silu)"
    " -> (Tensor, Tensor, Tensor)",
    backward, _fake_backward,
)  # fmt: skip
scan = with_gradients(forward, backward, (_FORWARD, _BACKWARD), _save, _gradients)
"""(x, weight, bias, initial_state, cu_seqlens, silu) -> y: `causal_conv1d` without its final state."""


def final_state(x: Tensor, initial: Tensor | None, bounds: Tensor | None, width: int) -> Tensor:
    """The last W - 1 inputs of every sequence, those of the initial state included, (S, W - 1, D) in float32.

    In torch's own, differentiable words: it is a few rows, and its gradient is seldom asked for.
    """
    sequences = x.shape[0] if bounds is None else len(bounds) - 1
    if initial is None:
        initial = x.new_zeros((sequences, width - 1, x.shape[2]))
    steps, inside, row = _steps(x, bounds, torch.arange(1 - width, 0, device=x.device))
    recent = x[row, steps].float()
    length = x.shape[1] if bounds is None else bounds.diff()[:, None]
    kept = (length + torch.arange(width - 1, device=x.device)).clamp(max=max(width - 2, 0)).expand(inside.shape)
    return torch.where(inside[..., None], recent, initial.float().gather(1, kept[..., None].expand(recent.shape)))


def step(x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor, silu: bool) -> tuple[Tensor, Tensor]:
    """`causal_conv1d_step` in one launch; without gradients."""
    x, weight, bias, state = _dense(x, weight, bias, state)
    (batch, channels), width = x.shape, weight.shape[1]
    y, following = torch.empty_like(x), torch.empty_like(state, dtype=torch.float32)
    with torch.cuda.device_of(x):
        _kernels.step[(batch * triton.cdiv(channels, 256),)](
            x, weight, bias, state, y, following, channels=channels, SILU=silu, WIDTH=width, BLOCK=256
        )
    return y, following
