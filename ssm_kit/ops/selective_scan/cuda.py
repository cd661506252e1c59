"""The selective scan on an NVIDIA GPU, forward, backward and step, in CUDA C++ (folder `kernels`).

Forward is one pass: states stay in registers, inputs go through shared memory tile by tile, and every SPAN steps the
state is kept for backward. Backward computes the states inside a span again. Gradients of B and C, sums over all
channels, are added up in registers and shared memory to one share per block, and the shares by a second kernel, in a
fixed order: no atomics, so that runs agree to the bit. Where sequences are few, each is cut into segments: a light
pass (`carry.cu`) computes what a segment makes of no state, from which all begin with the right one.

The count at B = 8, L = 2048, D = 4096, N = 16, bfloat16, with everything on, and what an H200 needs for it:
    forward   0.54 GB              0.13 ms of memory
              18.5 ex2, rcp each   0.30 ms of the special-function units (16 decays, softplus, half a shared rcp)
              ~140 instructions    0.32 ms of issue slots at 1.75 GHz (5 for each state)         measured 0.419 ms
    backward  1.2 GB               0.28 ms of memory
              ~29 instructions for each state, 1.05 ms of issue slots                            measured 1.57 ms
    (each: of one element of x.) Forward keeps exponentials busy to 72 %, issue slots to 66 %, the path to shared memory
    to 63 %: none is full, and the 16 warps that fit do not overlap them better. Backward needs 252 registers a thread,
    so that 8 warps fit. The second kernel takes 0.05 ms.

The first pass of a long sequence was held by exponentials, 80 % busy on an H100. With one of eight by multiplications
on the FMA units, forward and backward of one sequence of 65536 take 10.59 ms, not 10.73 (with two, in a cheaper form,
10.71); with its tile of 16 steps unrolled whole, 10.43 (by 8: 10.49). A decode step in blocks that stay and ask for
three sequences ahead takes 0.039 ms, not the 0.045 of blocks that read, compute, write; torch copies its state alone in
0.033.

What was tried for the two passes, in ms, beside 0.44 to 0.46 and 1.55 to 1.56 of these kernels before D and the bias
moved to shared memory (forward 0.419 since):
    forward   sums over states by the matrix units, TF32: 129 instructions, 0.48 to 0.49; under the profiler the clock
              stood at 1.79 GHz, otherwise at 1.96. Elementwise work spread among the steps of a scan, one barrier a
              tile: 142 instructions, 0.45 to 0.46. On top of that two channels a thread: 0.45 to 0.51; 1, 2 or 3 of 8
              exponentials by a polynomial: 0.45, 0.47, 0.49; 8 warps instead of 16: 0.46; now 20: 0.44, 32 with four
              states a thread: 0.49, with sixteen: 0.43 to 0.63. To learn what holds it, wrong results aside: without
              the scan's exponentials 0.39, without elementwise work 0.34. No one pipe does.
    backward  Of 480 instructions, forth and back within parts are 307, in 48 % of the time, near the issue limit; the
              scan before it, held by exponentials, is 58 in 20 %; elementwise work 115 in 30 %. Sums by the matrix
              units: 431 instructions, 1.68. 128 registers, for 16 warps: 1.77; with parts of two steps, whose states
              are rounded before each, 538 instructions; with those unrolled and memory asked ahead 1.53.
Forward and backward, of which mamba_ssm 2.3.2 needs the multiple in brackets: 1.99 ms (2.9); L = 8192: 7.81 ms (3.0);
one sequence of 65536: 10.5 ms (2.5). Measured by `python -m benchmarks.gpu`, torch 2.11, CUDA 13.
"""

from typing import Any

import torch
from torch import Tensor

from ssm_kit.ops import _nvrtc
from ssm_kit.ops._gpu import dense_copy, unsupported_dtype
from ssm_kit.ops.selective_scan._launch import SPAN, Launcher, backward_shape, forward_shape, padded

MAX_STATES = 64
"""Largest N: beyond, a tile of backward does not fit the 48 KB of shared memory that every GPU gives."""


def unsupported(x: Tensor, delta: Tensor, A: Tensor, *others: Tensor | None) -> str | None:
    """Why the kernels cannot run on these tensors, or None. No kernel runs, nothing is compiled."""
    if A.shape[1] > MAX_STATES:
        return f"the kernels take N <= {MAX_STATES}; got {A.shape[1]}"
    if (steps := x.shape[:-1].numel()) >= 2**31:
        return f"the kernels take fewer than 2^31 steps in all; got {steps}"
    return _nvrtc.unavailable() or unsupported_dtype(x, delta, A, *others)


def scan(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor,
    D: Tensor | None, z: Tensor | None, delta_bias: Tensor | None, delta_softplus: bool,
    initial_state: Tensor | None, cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`selective_scan` with its own arguments: y in the dtype of x, final states in float32; differentiable once."""
    u, delta, B, C, z, *rest = _prepare(x, delta, A, B, C, D, z, delta_bias, initial_state)
    A, D, delta_bias, initial_state = rest
    given = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    bounds = None if cu_seqlens is None else cu_seqlens.to(x.device, torch.int64)
    keep = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in given)
    y, state, _ = _forward(*given, bounds, delta_softplus, keep)
    return y.to(x.dtype), state


def _prepare(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
    delta_bias: Tensor | None, state: Tensor | None,
) -> tuple[Any, ...]:  # fmt: skip
    """x, delta, B, C, z in one dtype, B and C with groups; A, D, delta_bias and the state dense in float32."""
    dtypes = {tensor.dtype for tensor in (x, delta, B, C, z) if tensor is not None}
    dtype = dtypes.pop() if len(dtypes) == 1 else torch.float32
    B, C = (tensor if tensor.ndim > x.ndim else tensor.unsqueeze(-2) for tensor in (B, C))
    groups = max(B.shape[-2], C.shape[-2])
    B, C = (tensor.expand(*tensor.shape[:-2], groups, -1) for tensor in (B, C))
    wide = (None if tensor is None else tensor.to(dtype) for tensor in (x, delta, B, C, z))
    rest = (None if tensor is None else tensor.float().contiguous() for tensor in (A, D, delta_bias, state))
    return *wide, *rest


def step(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor,
    D: Tensor | None, z: Tensor | None, delta_bias: Tensor | None, delta_softplus: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`selective_scan_step` with its own arguments, without gradients: one kernel, nothing for the host to wait for."""
    u, delta, B, C, z, A, D, delta_bias, state = _prepare(x, delta, A, B, C, D, z, delta_bias, state)
    # The sequences take the place of the steps: their rows need not lie in one block of memory.
    u, delta, B, C = (tensor.unsqueeze(0) for tensor in (u, delta, B, C))
    z = None if z is None else z.unsqueeze(0)
    launcher = Launcher(u, delta, A, B, C, D, z, delta_bias, None, delta_softplus)
    y, after = u.new_empty(x.shape), torch.empty_like(state)
    launcher.step(state, y, after)
    return y.to(x.dtype), after


def boundary(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, *, delta_bias: Tensor | None, delta_softplus: bool
) -> tuple[Tensor, Tensor]:
    """What `scan` makes of a zero state, and its decay of any other, both (B, D, N); no outputs."""
    x, delta, B, _, _, A, _, bias, _ = _prepare(x, delta, A, B, B, None, None, delta_bias, None)
    end, total = Launcher(x, delta, A, B, B, None, None, bias, None, delta_softplus).left(None)
    return end, torch.exp(A * total[..., None])


def start_gradient(
    dy: Tensor, delta: Tensor, A: Tensor, C: Tensor, *, z: Tensor | None, delta_bias: Tensor | None,
    delta_softplus: bool,
) -> Tensor:  # fmt: skip
    """The gradient of the initial state of `scan`, (B, D, N), given that of its outputs alone."""
    dy, delta, _, C, z, A, _, bias, _ = _prepare(dy, delta, A, C, C, None, z, delta_bias, None)
    dy = _dense(dy)
    return Launcher(dy, delta, A, C, C, None, z, bias, None, delta_softplus).left(dy)[0]


def _dense(dy: Tensor) -> Tensor:
    """As the kernels read it: in one block that begins at a multiple of 16 bytes."""
    return dy.contiguous() if dy.data_ptr() % 16 == 0 else dense_copy(dy)


@torch.library.custom_op("ssm_kit::selective_scan_forward", mutates_args=(), device_types="cuda")
def _forward(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
    bias: Tensor | None, initial: Tensor | None, bounds: Tensor | None, softplus: bool, keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """y, the final states, and, with `keep`, the states that `_backward` starts from."""
    launcher = Launcher(x, delta, A, B, C, D, z, bias, bounds, softplus)
    y, final, saved = _forward_outputs(x, A, bounds, keep)
    shape = forward_shape(A.shape[1])
    segment, slots = launcher.segments(shape)
    ends, sums = launcher.carried(segment, slots, None)
    launcher.run("forward", shape, segment, slots, initial, ends, sums, y, final, saved if keep else None)
    return y, final, saved


def _forward_outputs(x: Tensor, A: Tensor, bounds: Tensor | None, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    batch, length, channels = x.shape
    rows = batch if bounds is None else len(bounds) - 1
    spans = batch * -(-length // SPAN) if bounds is None else length // SPAN + rows
    kept = x.new_empty(
        (spans if keep else 0, channels, padded(A.shape[1])),
        dtype=torch.float32 if x.dtype == torch.float32 else torch.bfloat16,
    )
    final = A.new_empty((rows, channels, A.shape[1]))
    return torch.empty_like(x, memory_format=torch.contiguous_format), final, kept


@_forward.register_fake
def _(x, delta, A, B, C, D, z, bias, initial, bounds, softplus, keep):
    return _forward_outputs(x, A, bounds, keep)


@torch.library.custom_op("ssm_kit::selective_scan_backward", mutates_args=(), device_types="cuda")
def _backward(
    dy: Tensor, dfinal: Tensor | None, saved: Tensor, x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor,
    D: Tensor | None, z: Tensor | None, bias: Tensor | None, bounds: Tensor | None, softplus: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x, delta, A, B, C, D, z, bias and of the initial states; all of them, needed or not."""
    launcher = Launcher(x, delta, A, B, C, D, z, bias, bounds, softplus)
    dy = _dense(dy)
    dfinal = None if dfinal is None else dfinal.contiguous()
    shape = backward_shape(A.shape[1])
    segment, slots = launcher.segments(shape)
    ends, sums = launcher.carried(segment, slots, dy)
    dx, ddelta, dz = (torch.empty_like(dy) for _ in range(3))
    dinitial = A.new_empty((launcher.rows, *A.shape))
    # A slot that no sequence needs stays as it is: so zeros.
    dA, dDbias = A.new_zeros((slots, *A.shape)), A.new_zeros((slots, 2, A.shape[0]))
    blocks = launcher.blocks(shape)
    batch, length, groups, states = B.shape
    dBC = A.new_empty((blocks, batch, length, 2, states))
    launcher.run("backward", shape, segment, slots, dy, dfinal, ends, sums, saved,
                 dx, ddelta, dz, dA, dBC, dDbias, dinitial)  # fmt: skip
    parts = dBC.unflatten(0, (groups, -1)).sum(1).permute(3, 1, 2, 0, 4)
    dB, dC = (part.to(x.dtype, copy=True, memory_format=torch.contiguous_format) for part in parts)
    dD, dbias = dDbias.sum(0)
    return dx, ddelta, dA.sum(0), dB, dC, dD, dz, dbias.clone(), dinitial


@_backward.register_fake
def _(dy, dfinal, saved, x, delta, A, B, C, D, z, bias, bounds, softplus):
    rows = x.shape[0] if bounds is None else len(bounds) - 1
    like = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in (x, x, A, B, C)]
    channels = A.new_empty(A.shape[0])
    return (*like, channels, torch.empty_like(like[0]), torch.empty_like(channels), A.new_empty((rows, *A.shape)))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, initial, bounds, ctx.softplus, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[2])
    ctx.save_for_backward(output[2], *tensors, bounds)
    ctx.starts = initial is not None


def _gradients(ctx: Any, dy: Tensor | None, dfinal: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    saved, x, delta, A, B, C, D, z, bias, bounds = ctx.saved_tensors
    if dy is None:
        dy = torch.zeros_like(x)
    found = _backward(dy, dfinal, saved, x, delta, A, B, C, D, z, bias, bounds, ctx.softplus)
    dx, ddelta, dA, dB, dC, dD, dz, dbias, dinitial = found
    return (
        dx, ddelta, dA, dB, dC, None if D is None else dD, None if z is None else dz,
        None if bias is None else dbias, dinitial if ctx.starts else None, None, None, None,
    )  # fmt: skip


_forward.register_autograd(_gradients, setup_context=_keep)
