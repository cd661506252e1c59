"""The short causal convolution on a GPU, in Triton.

A program owns BLOCK channels of one sequence and walks through a segment of its time with the last W inputs, the taps
and all sums in registers, so that every input is read once (and W - 1 of them again where a segment begins). It asks
for ROWS steps of input before the first of them is used, so that enough bytes are on their way.

Bytes at B 8, D 4096, L 4096 in bfloat16: forward reads x and writes y, 0.54 GB; backward reads x and ȳ, computes what
SiLU was applied to again, and writes x̄, 0.81 GB. At the 4274 GB/s of an H200's copy: 0.126 and 0.188 ms. Forward
takes 4 multiply-adds and one exponential a number, backward 12 and one, which is half of that time.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ssm_kit.ops._autograd import differentiable_once
from ssm_kit.ops._gpu import unsupported_dtype, with_dense_channels

TAPS = 16
"""Taps that a program's registers hold."""


def unsupported(x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None) -> str | None:
    """Why the kernels cannot serve this call, or None."""
    if weight.shape[1] > TAPS:
        return f"the kernels hold at most {TAPS} taps; got {weight.shape[1]}"
    return unsupported_dtype(x, weight, bias, initial_state)


@triton.jit
def _place(segments, channels, BLOCK: tl.constexpr):
    """What this program owns: a row of the batch, a segment of its time, channels, and which of those exist."""
    blocks = tl.cdiv(channels, BLOCK)
    program = tl.program_id(0)
    columns = (program % blocks) * BLOCK + tl.arange(0, BLOCK)
    program = (program // blocks).to(tl.int64)  # offsets count beyond 2^31
    return program // segments, program % segments, columns, columns < channels


@triton.jit
def _sequence(bounds, sequences, batch, length, t):
    """The sequence that step t belongs to, its first step, and the one after its last."""
    low, begin, end = batch, batch * 0, batch * 0 + length
    if bounds is not None:
        high = begin + sequences
        while high - low > 1:
            middle = (low + high) // 2
            begun = tl.load(bounds + middle) <= t
            low, high = tl.where(begun, middle, low), tl.where(begun, high, middle)
        begin, end = tl.load(bounds + low).to(tl.int64), tl.load(bounds + low + 1).to(tl.int64)
    return low, begin, end


@triton.jit
def _parameters(weight, bias, columns, inside, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """The taps, a vector over channels for each, and the bias."""
    taps = ()
    for k in tl.static_range(WIDTH):
        taps += (tl.load(weight + columns * WIDTH + k, inside, other=0.0).to(tl.float32),)
    offset = tl.zeros([BLOCK], tl.float32)
    if bias is not None:
        offset += tl.load(bias + columns, inside, other=0.0).to(tl.float32)
    return taps, offset


@triton.jit
def _rows(pointer, stride, t, length, columns, inside, ROWS: tl.constexpr):
    """Rows t .. t + ROWS - 1, zero beyond the end, all asked for before the first is used."""
    rows = ()
    for r in tl.static_range(ROWS):
        rows += (tl.load(pointer + (t + r) * stride + columns, inside & (t + r < length), other=0.0),)
    return rows


@triton.jit
def _window(x, stride, initial, sequence, begin, t, channels, columns, inside, WIDTH: tl.constexpr):
    """The WIDTH - 1 inputs before step t of a sequence; those before its first step come from the initial state."""
    window = ()
    for k in tl.static_range(WIDTH - 1):
        s = t - (WIDTH - 1) + k
        row = tl.load(x + s * stride + columns, inside & (s >= begin), other=0.0).to(tl.float32)
        if initial is not None:
            place = (sequence * (WIDTH - 1) + s - begin + WIDTH - 1) * channels + columns
            row += tl.load(initial + place, inside & (s < begin), other=0.0).to(tl.float32)
        window += (row,)
    return window


@triton.jit
def _next_sequence(
    window, x, stride, initial, bounds, sequence, begin, end, t, length, channels, columns, inside, WIDTH: tl.constexpr
):
    """Where a packed sequence begins at step t, what came before is the initial state of that sequence."""
    fresh = (t == end) & (t < length)
    sequence += fresh.to(tl.int64)
    begin = tl.where(fresh, t, begin)
    end = tl.load(bounds + sequence + 1, fresh, other=end).to(tl.int64)
    before = _window(x, stride, initial, sequence, begin, t, channels, columns, inside & fresh, WIDTH)
    renewed = ()
    for k in tl.static_range(WIDTH - 1):
        renewed += (tl.where(fresh, before[k], window[k]),)
    return renewed, sequence, begin, end


@triton.jit
def _weigh(window, taps, offset, WIDTH: tl.constexpr):
    u = offset
    for k in tl.static_range(WIDTH):
        u += taps[k] * window[k]
    return u


@triton.jit(do_not_specialize=["length", "sequences"])
def _forward_kernel(
    x, weight, bias, initial, bounds, y, length, channels, sequences, segments, segment_length, x_batch, x_time,
    SILU: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    batch, segment, columns, inside = _place(segments, channels, BLOCK)
    x += batch * x_batch
    y += batch * length * channels
    first = segment * segment_length
    sequence, begin, end = _sequence(bounds, sequences, batch, length, first)
    taps, offset = _parameters(weight, bias, columns, inside, WIDTH, BLOCK)
    window = _window(x, x_time, initial, sequence, begin, first, channels, columns, inside, WIDTH)
    for t in range(first, min(first + segment_length, length), ROWS):
        rows = _rows(x, x_time, t, length, columns, inside, ROWS)
        for r in tl.static_range(ROWS):
            if bounds is not None:
                window, sequence, begin, end = _next_sequence(
                    window, x, x_time, initial, bounds, sequence, begin, end, t + r, length, channels, columns, inside,
                    WIDTH,
                )  # fmt: skip
            window += (rows[r].to(tl.float32),)
            u = _weigh(window, taps, offset, WIDTH)
            if SILU:
                u = u / (1 + tl.exp(-u))
            tl.store(y + (t + r) * channels + columns, u, inside & (t + r < length))
            window = window[1:]


@triton.jit(do_not_specialize=["length", "sequences"])
def _backward_kernel(
    x, weight, bias, initial, bounds, dy, dx, partials, length, channels, sequences, segments, segment_length,
    x_batch, x_time, dy_batch, dy_time, SILU: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradient of x in this segment, and this segment's part of the gradients of the taps and the bias.

    At step t the gradient du of the sum u_t reaches x_{t-W+1} .. x_t: their sums wait in `sums`, and the oldest is
    then complete. So the walk goes W - 1 steps beyond the segment.
    """
    batch, segment, columns, inside = _place(segments, channels, BLOCK)
    x += batch * x_batch
    dy += batch * dy_batch
    dx += batch * length * channels
    first = segment * segment_length
    last = min(first + segment_length, length.to(tl.int64))
    sequence, begin, end = _sequence(bounds, sequences, batch, length, first)
    taps, offset = _parameters(weight, bias, columns, inside, WIDTH, BLOCK)
    window = _window(x, x_time, initial, sequence, begin, first, channels, columns, inside, WIDTH)
    zero = tl.zeros([BLOCK], tl.float32)
    sums, dtaps, doffset = (zero,) * (WIDTH - 1), (zero,) * WIDTH, zero
    for t in range(first, last + WIDTH - 1, ROWS):
        rows = _rows(x, x_time, t, length, columns, inside, ROWS)
        drows = _rows(dy, dy_time, t, length, columns, inside, ROWS)
        for r in tl.static_range(ROWS):
            if bounds is not None:
                window, sequence, begin, end = _next_sequence(
                    window, x, x_time, initial, bounds, sequence, begin, end, t + r, length, channels, columns, inside,
                    WIDTH,
                )  # fmt: skip
            window += (rows[r].to(tl.float32),)
            du = drows[r].to(tl.float32)
            if SILU:
                u = _weigh(window, taps, offset, WIDTH)
                gate = 1 / (1 + tl.exp(-u))
                du *= gate * (1 + u * (1 - gate))
            own = tl.where(t + r < last, du, 0.0)
            doffset += own
            sums += (zero,)
            grown, summed = (), ()
            for k in tl.static_range(WIDTH):
                reached = du
                if bounds is not None:
                    reached = tl.where(t + r - (WIDTH - 1) + k >= begin, du, 0.0)
                grown += (dtaps[k] + own * window[k],)
                summed += (sums[k] + reached * taps[k],)
            dtaps = grown
            s = t + r - (WIDTH - 1)
            tl.store(dx + s * channels + columns, summed[0], inside & (s >= first) & (s < last))
            window, sums = window[1:], summed[1:]
    partials += (batch * segments + segment) * (WIDTH + 1) * channels + columns
    for k in tl.static_range(WIDTH):
        tl.store(partials + k * channels, dtaps[k], inside)
    tl.store(partials + WIDTH * channels, doffset, inside)


@triton.jit
def _step_kernel(
    x, weight, bias, state, y, following, channels, SILU: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr
):
    batch, _, columns, inside = _place(1, channels, BLOCK)
    taps, offset = _parameters(weight, bias, columns, inside, WIDTH, BLOCK)
    state += batch * (WIDTH - 1) * channels + columns
    following += batch * (WIDTH - 1) * channels + columns
    new = tl.load(x + batch * channels + columns, inside).to(tl.float32)
    u = offset + taps[WIDTH - 1] * new
    for k in tl.static_range(WIDTH - 1):
        row = tl.load(state + k * channels, inside).to(tl.float32)
        u += taps[k] * row
        if k > 0:
            tl.store(following + (k - 1) * channels, row, inside)
    if WIDTH > 1:
        tl.store(following + (WIDTH - 2) * channels, new, inside)
    if SILU:
        u = u / (1 + tl.exp(-u))
    tl.store(y + batch * channels + columns, u, inside)


class Plan(NamedTuple):
    """How the work is cut: programs of `warps` warps, `block` channels, `rows` steps at a time, time in segments."""

    rows: int
    block: int
    warps: int
    segment_length: int


def plan(x: Tensor, gradient: bool) -> Plan:
    """The cut for x (B, L, D)."""
    return Plan(8, 64, 1, 256)


def _launch(cut: Plan, x: Tensor, weight: Tensor, bounds: Tensor | None, silu: bool) -> tuple[Any, ...]:
    """Number of programs, segments, and the arguments that both kernels take."""
    batch, length, channels = x.shape
    segments = triton.cdiv(length, cut.segment_length)
    sizes = (length, channels, 0 if bounds is None else len(bounds) - 1, segments, cut.segment_length)
    known = {"SILU": silu, "WIDTH": weight.shape[1], "ROWS": cut.rows, "BLOCK": cut.block, "num_warps": cut.warps}
    return (batch * segments * triton.cdiv(channels, cut.block),), segments, sizes, known


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial: Tensor | None, bounds: Tensor | None, silu: bool
) -> Tensor:
    """y (B, L, D) in the dtype of x."""
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    x, cut = with_dense_channels(x), plan(x, False)
    grid, _, sizes, known = _launch(cut, x, weight, bounds, silu)
    with torch.cuda.device_of(x):
        _forward_kernel[grid](x, weight, bias, initial, bounds, y, *sizes, *x.stride()[:2], **known)
    return y


def backward(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial: Tensor | None, bounds: Tensor | None, dy: Tensor,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of x (B, L, D) in its dtype, of weight (D, W) and of bias (D,) in float32."""
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    x, dy, cut = with_dense_channels(x), with_dense_channels(dy), plan(x, True)
    grid, segments, sizes, known = _launch(cut, x, weight, bounds, silu)
    batch, _, channels = x.shape
    partials = torch.empty((batch * segments, weight.shape[1] + 1, channels), device=x.device)
    strides = (*x.stride()[:2], *dy.stride()[:2])
    with torch.cuda.device_of(x):
        _backward_kernel[grid](x, weight, bias, initial, bounds, dy, dx, partials, *sizes, *strides, **known)
    sums = partials.sum(0)  # in one order, whatever the order in which the programs ran
    return dx, sums[:-1].T.contiguous(), sums[-1].clone()


_forward = torch.library.custom_op(
    "ssm_kit::causal_conv1d_forward", forward, mutates_args=(), device_types="cuda",
    schema="(Tensor x, Tensor weight, Tensor? bias, Tensor? initial, Tensor? bounds, bool silu) -> Tensor",
)  # fmt: skip
_backward = torch.library.custom_op(
    "ssm_kit::causal_conv1d_backward", backward, mutates_args=(), device_types="cuda",
    schema="(Tensor x, Tensor weight, Tensor? bias, Tensor? initial, Tensor? bounds, Tensor dy, bool silu)"
    " -> (Tensor, Tensor, Tensor)",
)  # fmt: skip


@_forward.register_fake
def _(x: Tensor, *_: Any) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


@_backward.register_fake
def _(x: Tensor, weight: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    return dx, torch.empty_like(weight, dtype=torch.float32), weight.new_empty(len(weight), dtype=torch.float32)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.silu = inputs
    ctx.save_for_backward(*tensors)


@differentiable_once
def _gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, bias, initial, bounds = ctx.saved_tensors
    dx, dweight, dbias = _backward(x, weight, bias, initial, bounds, dy, ctx.silu)
    dinitial = None
    if ctx.needs_input_grad[3]:
        dinitial = _initial_gradient(x, weight, bias, initial, bounds, dy, ctx.silu)
    return dx, dweight.to(weight.dtype), None if bias is None else dbias.to(bias.dtype), dinitial, None, None


_forward.register_autograd(_gradients, setup_context=_save)


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


def scan(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial: Tensor | None, bounds: Tensor | None, silu: bool
) -> Tensor:
    """`causal_conv1d` without its final state; differentiable once."""
    y: Tensor = _forward(x, weight.contiguous(), bias, None if initial is None else initial.contiguous(), bounds, silu)
    return y


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
    x, weight, state = (tensor.contiguous() for tensor in (x, weight, state))
    (batch, channels), width = x.shape, weight.shape[1]
    y, following = torch.empty_like(x), torch.empty_like(state, dtype=torch.float32)
    with torch.cuda.device_of(x):
        _step_kernel[(batch * triton.cdiv(channels, 256),)](
            x, weight, bias, state, y, following, channels, SILU=silu, WIDTH=width, BLOCK=256
        )
    return y, following
