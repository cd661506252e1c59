"""SSD on a GPU: Triton kernels as differentiable custom operators, so that torch.compile can take them as they are.

Forward, one launch after a small one that adds up the decays of each chunk: a program has one head of one sequence,
walks along its chunks of 64 steps and keeps the state on chip (float32, with a copy in the inputs' precision for the
products). Where heads are too few to fill the GPU, a sequence is cut into segments, and a first pass, in finer pieces,
finds what state each of them inherits. Backward, no state is kept from the forward pass: two walks, forward and in
reverse, write the states and their gradients at every chunk's start and end; then all chunks at once, each with the
heads of a group one after another, so that dB and dC add up on chip in a fixed order; a last small launch turns sums
into gradients of Δ, A.

Rounding. The gradient of A adds up what every state passes on, with both signs, so errors of its terms weigh several
times as much in the sum. In an emulation of the tests in float64, states and what enters them in bfloat16 cost it up to
0.5 %, and SiLU(z) dy rounded to bfloat16 up to 0.6 %. So in the backward pass states and all that enters or meets them
(B, C, x decayed, dy decayed) are float16, of each chunk in a unit of its own, and what rounding took from SiLU(z) dy is
kept. States of fewer than 16 rows or columns are computed in float32. Float32 itself has small tiles that need no
wgmma: see `_plan.plan_of`.

Counted at B 8, L 4096, H 64, P 64, N 128, G 1, bfloat16, D, bias, softplus:

* forward: x and y, 268 MB each, B, C, Δ and what is known of chunks, 0.06 GB: 0.6 GB, 0.14 ms at 4.27 TB/s. A chunk
  and head take 3.7 MFLOP, of which the scores C_i · B_j, alike for all heads, are 1.0: 0.12 TFLOP, 0.18 ms at
  683 TFLOP/s. Every program reads B and C, so L2 has to deliver 1.6 GB.
* backward: a walk reads x or dy and writes states, 0.8 GB; the chunks read states once and their gradients twice, x and
  dy twice, and write dx: 4.6 GB in all, 1.1 ms. 0.24 TFLOP, 0.35 ms.

Measured on one H200 (torch 2.11, Triton 3.6), as CUDA graphs: forward 0.391 ms, 2.6 times the floor of
benchmarks/gpu.py, 2.9 times as fast as mamba_ssm 2.3.2 in the same run; DRAM moved 0.57 GB, L2 1.73 GB. Forward and
backward: 2.30 ms. One sequence of 65,536 steps: 0.94 ms and 4.89 ms; with a first pass in whole segments, for which 192
programs are too few, 0.99 and 5.13, the pass itself, under the profiler, 0.21 ms instead of 0.15. With two bfloat16
products for each one of float16 in the backward pass's walks it was 2.35 ms, of which the walks took 0.29 and 0.30 ms,
what crosses chunks 0.61 and what stays inside them 0.63.

What holds it back: the forward kernel issues an instruction in 33 % of cycles. Two programs of four warps fit a
multiprocessor, for a thread takes 255 registers, and within a program every product waits for the one before it. Of the
stalls 36 % are loads and 18 % barriers; the tensor cores are busy 35 % of the time, DRAM 31 %, the path to shared
memory 56 %. Backward, the walks and what crosses chunks take DRAM to 62 to 65 % of its peak, what stays inside them to
54 %, all with two programs of four warps on a multiprocessor. Programs of eight warps are slower, for Triton repeats
tiles of 64 rows in the second four; fewer registers spill. CUDA C++ could let two heads share B, C and the scores, and
overlap the products of one with the decays of the other.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ssm_kit.ops._autograd import differentiable_once
from ssm_kit.ops._gpu import unsupported_dtype
from ssm_kit.ops._selective import total_step
from ssm_kit.ops.ssd import _launch
from ssm_kit.ops.ssd._launch import Inputs
from ssm_kit.ops.ssd._plan import compute_dtype

MAX_STATES = 256
"""The largest N: tiles of dB and of dC, Q × N each, must fit the registers."""


def unsupported(x: Tensor, B: Tensor, *others: Tensor | None) -> str | None:
    """Why the kernels cannot serve a call with these tensors, or None."""
    if B.shape[-1] > MAX_STATES:
        return f"the kernels hold at most {MAX_STATES} columns of a state; got N = {B.shape[-1]}"
    return unsupported_dtype(x, B, *others)


def scan(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, *, D: Tensor | None = None, z: Tensor | None = None,
    delta_bias: Tensor | None = None, delta_softplus: bool = False, initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`ssd` with its own arguments: y in the dtype of x, and the final state in float32. Differentiable once."""
    dtype = compute_dtype(x, B, C)
    tensors = (x, delta, A, B, C, D, z, delta_bias, initial_state)
    trained = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
    inputs = (x.to(dtype), delta, A, B.to(dtype), C.to(dtype), D, z, delta_bias, initial_state, cu_seqlens)
    y, _, state = _forward(*inputs, delta_softplus, trained and z is not None)
    return y.to(x.dtype), state


def step(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, *, state: Tensor, D: Tensor | None = None,
    z: Tensor | None = None, delta_bias: Tensor | None = None, delta_softplus: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`ssd_step` in one launch, without gradients; it neither waits for the GPU nor writes into its arguments."""
    with torch.cuda.device(x.device):
        return _launch.step(x, delta, A, B, C, state, D, z, delta_bias, delta_softplus)


def boundary(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, *, delta_bias: Tensor | None, delta_softplus: bool
) -> tuple[Tensor, Tensor]:
    """What `scan` makes of a zero state, (B, H, P, N), and its decay of any other, (B, H, 1, 1); no outputs."""
    with torch.cuda.device(x.device):
        end = _launch.end(_stateless(x, delta, A, B, delta_bias), delta_softplus)
    return end, torch.exp(A * total_step(delta, delta_bias, delta_softplus))[..., None, None]


def start_gradient(
    dy: Tensor, delta: Tensor, A: Tensor, C: Tensor, *, z: Tensor | None, delta_bias: Tensor | None,
    delta_softplus: bool,
) -> Tensor:  # fmt: skip
    """The gradient of the initial state of `scan`, given that of its outputs alone."""
    before_gate = dy if z is None else (dy.float() * F.silu(z.float())).to(dy.dtype)
    with torch.cuda.device(dy.device):
        return _launch.start_gradient(_stateless(before_gate, delta, A, C, delta_bias), delta_softplus)


def _stateless(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, delta_bias: Tensor | None) -> Inputs:
    dtype = compute_dtype(x, B, B)
    return Inputs(x.to(dtype), delta, A, B.to(dtype), B.to(dtype), None, None, delta_bias, None, None)


@torch.library.custom_op("ssm_kit::ssd_forward", mutates_args=(), device_types="cuda")
def _forward(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
    delta_bias: Tensor | None, initial_state: Tensor | None, cu_seqlens: Tensor | None, delta_softplus: bool,
    keep_ungated: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    inputs = Inputs(x, delta, A, B, C, D, z, delta_bias, initial_state, cu_seqlens)
    with torch.cuda.device(x.device):
        return _launch.forward(inputs, delta_softplus, keep_ungated)


@_forward.register_fake
def _forward_shapes(x, delta, A, B, C, D, z, delta_bias, initial_state, cu_seqlens, delta_softplus, keep_ungated):
    rows = x.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    state = torch.empty((rows, *x.shape[2:], B.shape[3]), dtype=torch.float32, device=x.device)
    return y, torch.empty_like(y) if keep_ungated else y.new_empty(0), state


@torch.library.custom_op("ssm_kit::ssd_backward", mutates_args=(), device_types="cuda")
def _backward(
    dy: Tensor, dstate: Tensor, x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
    z: Tensor | None, delta_bias: Tensor | None, initial_state: Tensor | None, cu_seqlens: Tensor | None,
    ungated: Tensor, delta_softplus: bool,
) -> list[Tensor]:  # fmt: skip
    """The gradients of x to initial_state, shaped and typed as those; an empty tensor for each that is None."""
    inputs = Inputs(x, delta, A, B, C, D, z, delta_bias, initial_state, cu_seqlens)
    with torch.cuda.device(x.device):
        gradients = _launch.backward(inputs, delta_softplus, dy, dstate, ungated)
    pairs = zip(gradients, inputs[:9], strict=True)
    return [x.new_empty(0) if i is None or g is None else g.to(i.dtype).reshape(i.shape) for g, i in pairs]


@_backward.register_fake
def _backward_shapes(
    dy, dstate, x, delta, A, B, C, D, z, delta_bias, initial_state, cu_seqlens, ungated, delta_softplus
):  # fmt: skip
    inputs = (x, delta, A, B, C, D, z, delta_bias, initial_state)
    return [x.new_empty(0) if i is None else torch.empty(i.shape, dtype=i.dtype, device=i.device) for i in inputs]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.delta_softplus, _ = inputs
    ctx.save_for_backward(*tensors, output[1])
    ctx.mark_non_differentiable(output[1])


@differentiable_once
def _gradients(ctx: Any, dy: Tensor, _: Tensor, dstate: Tensor) -> tuple[Tensor | None, ...]:
    *inputs, ungated = ctx.saved_tensors
    gradients = _backward(dy, dstate, *inputs, ungated, ctx.delta_softplus)
    kept = (part if tensor is not None else None for part, tensor in zip(gradients, inputs[:9], strict=True))
    return *kept, None, None, None


_forward.register_autograd(_gradients, setup_context=_save)
