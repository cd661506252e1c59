"""Linear attention and the delta rules on a GPU: Triton kernels in two launches forward, two backward.

    inside          every chunk of 64 steps by itself: decays, scores, the triangular system    (`_inside`)
    forward_walk    memory and outputs, chunk after chunk, a slice of the memory in registers    (`_memory`)
    backward_walk   the memory's gradient, from the last chunk to the first                      (`_memory`)
    gradients       every chunk by itself: what is left of the gradients                         (`_gradients`)

What must move, at batch 8, 4096 steps, 16 heads, K = V = 128, bfloat16: q, k, v, o of 134 MB each, 537 MB forward and
1.48 GB forward and backward. A copy runs at 4274 GB/s on an H200, which makes .126 and .346 ms.

What these kernels move, and their matrix products (8192 chunks of a head):

                    read                                     written                       GB     GFLOP
    inside          q, k                                     scores, M: 67 MB each         .41    34 (half in tf32)
    forward_walk    q, k, v, scores, M                       o (for gradients: X, states)  .67    69 (with them 1.07)
    backward_walk   q, k, do, scores, M                      dY, dV, states' gradient     1.07    69
    gradients       q, k, do, X, dY, states, their gradient  dq, dk                       1.48   134

Memory kept between forward and backward, besides the inputs: X (134 MB) and a state a chunk (268 MB), both in the
dtype of the inputs, scores and M (134 MB). From the bytes: .25 ms forward, .94 ms forward and backward.

Measured on an H200 (torch 2.11.0, triton 3.6.0) in ms, beside fla 0.6.0's chunked kernels, by `benchmarks.gpu`, which
counts g and β too and takes the copy's rate from the same run:

                          forward   floor   fla     forward + backward   floor   fla
    batch 8, 4096 steps   .444      .126    1.06    2.24                 .348    3.71
    batch 1, 65536 steps  1.35      .253    2.75    5.43                 .696    9.73

    inside .224, forward_walk .232 (.359 with states), backward_walk .363, gradients 1.28; a decoding step of 256
    sequences .136 (floor .127).

What holds it back. `inside` takes 2.3 times its bytes: a program waits for its tiles, then goes through sixteen short
dependent steps; four programs share a multiprocessor (three, with all the registers they like: .237). `gradients` takes
3.7 times its bytes and is the first thing to mend: 255 registers and spills, eight warps a multiprocessor. Other tiles
and 8 warps (1.29 to 1.77), half the registers (1.39), the copy engine (1.23 to 2.5) and both key slices in one program
(1.28 to 2.4) were no better. Under the profiler it waits for loads; DRAM is busy 37 % of the time, the path to shared
memory 51 %. A long sequence pays one more walk, .46 ms forward and .43 backward, to run in eight segments; without them
its 32 programs would use a quarter of the GPU.
"""

import torch
import triton
from torch import Tensor

from ssm_kit.ops._gpu import unsupported_dtype
from ssm_kit.ops.gated_delta import _launch, _step, _unit
from ssm_kit.ops.gated_delta._arguments import EPSILON

MAX_KEY = 256
"""The largest K: a slice of the memory, 64 × K, must fit the registers."""


def unsupported(*tensors: Tensor | None, width: int) -> str | None:
    """Why the kernels cannot serve a call with these tensors and keys of this width, or None."""
    if width > MAX_KEY:
        return f"the kernels keep keys of at most {MAX_KEY} entries; got K = {width}"
    return unsupported_dtype(*tensors)


def scan(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    beta: Tensor | None,
    initial: Tensor | None,
    cu_seqlens: Tensor | None,
    scale: float,
    qk_l2norm: bool,
) -> tuple[Tensor, Tensor]:
    """Outputs (B, L, HV, V) and last memories (B or S, HV, K, V) in float32; differentiable once.

    Args: as the public functions take them, checked; q, k (B, L, H, K) not spread over the value heads.
    """
    dtype = torch.promote_types(torch.promote_types(q.dtype, k.dtype), v.dtype)
    q, k, v = (x.to(dtype) for x in (q, k, v))
    if qk_l2norm:
        q, k = _unit.unit_rows(q), _unit.unit_rows(k)
    given = [x for x in (q, k, v, g, beta, initial) if x is not None]
    keep = torch.is_grad_enabled() and any(x.requires_grad for x in given)
    o, state, *_ = _forward(q, k, v, g, beta, initial, cu_seqlens, scale, keep)
    return o, state


@torch.library.custom_op("ssm_kit::gated_delta_forward", mutates_args=())
def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    beta: Tensor | None,
    initial: Tensor | None,
    bounds: Tensor | None,
    scale: float,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _launch.forward(q, k, v, g, beta, initial, bounds, scale, keep)


@_forward.register_fake
def _(q, k, v, g, beta, initial, bounds, scale, keep):
    return _launch.outputs(_launch.plan_of(q, v, bounds), q, v, beta, keep)


@torch.library.custom_op("ssm_kit::gated_delta_backward", mutates_args=())
def _backward(
    do: Tensor,
    dfinal: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    beta: Tensor | None,
    bounds: Tensor | None,
    scale: float,
    scores: Tensor,
    resolvent: Tensor,
    factors: Tensor,
    across: Tensor,
    corrected: Tensor,
    states: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    kept = scores, resolvent, factors, across, corrected, states
    return _launch.backward(do, dfinal, q, k, v, g, beta, bounds, scale, *kept)


@_backward.register_fake
def _(do, dfinal, q, k, v, g, beta, bounds, scale, scores, resolvent, factors, across, corrected, states):
    plan = _launch.plan_of(q, v, bounds)
    return (
        torch.empty_like(q, memory_format=torch.contiguous_format),
        torch.empty_like(k, memory_format=torch.contiguous_format),
        q.new_empty(v.shape),
        q.new_empty(v.shape[:3] if g is not None else 0, dtype=torch.float32),
        q.new_empty(v.shape[:3] if beta is not None else 0, dtype=torch.float32),
        q.new_empty(plan.memory, dtype=torch.float32),
    )


def _setup(ctx, inputs, output):
    q, k, v, g, beta, initial, bounds, scale, _ = inputs
    ctx.save_for_backward(q, k, v, g, beta, bounds, *output[2:])
    ctx.scale, ctx.started = scale, None if initial is None else initial.dtype
    ctx.set_materialize_grads(False)


def _gradient(ctx, do, dfinal, *_):
    if torch.is_grad_enabled():
        raise RuntimeError('create_graph=True: backend="cuda" has first derivatives only; backend="reference" has all')
    q, k, v, g, beta, bounds, *kept = ctx.saved_tensors
    plan = _launch.plan_of(q, v, bounds)
    do = torch.zeros_like(v) if do is None else do
    dfinal = q.new_zeros(plan.memory, dtype=torch.float32) if dfinal is None else dfinal
    dq, dk, dv, dg, dbeta, dinitial = _backward(do, dfinal, q, k, v, g, beta, bounds, ctx.scale, *kept)
    return (
        dq, dk, dv, None if g is None else dg.to(g.dtype), None if beta is None else dbeta.to(beta.dtype),
        None if ctx.started is None else dinitial.to(ctx.started), None, None, None,
    )  # fmt: skip


_forward.register_autograd(_gradient, setup_context=_setup)


def step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    beta: Tensor | None,
    state: Tensor,
    scale: float,
    unit: bool,
) -> tuple[Tensor, Tensor]:
    """Output (B, HV, V) and next state (B, HV, K, V) in float32, without gradients; no synchronisation.

    Args: as the public functions take them, checked; q, k (B, H, K) not spread over the value heads.
    """
    outputs: tuple[Tensor, Tensor] = _step_op(q, k, v, g, beta, state, scale, unit)
    return outputs


@torch.library.custom_op("ssm_kit::gated_delta_step", mutates_args=())
def _step_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    beta: Tensor | None,
    state: Tensor,
    scale: float,
    unit: bool,
) -> tuple[Tensor, Tensor]:
    q, k, v, state = (x.contiguous() for x in (q, k, v, state))
    g, beta = (None if x is None else x.contiguous() for x in (g, beta))
    (batch, H, K), (HV, V) = q.shape, v.shape[1:]
    o, following = q.new_empty(v.shape), torch.empty_like(state, dtype=torch.float32)
    width = min(64, triton.next_power_of_2(V))
    _step.step[(batch * HV, triton.cdiv(V, width))](
        q, k, v, g, beta, state, o, following, scale, H, HV, EPSILON, K=K, V=V, K_PAD=triton.next_power_of_2(K),
        BV=width, UNIT=unit, num_warps=4,
    )  # fmt: skip
    return o, following


@_step_op.register_fake
def _(q, k, v, g, beta, state, scale, unit):
    return q.new_empty(v.shape), state.new_empty(state.shape, dtype=torch.float32)
