"""Linear attention and the delta rules on a GPU: Triton kernels in three launches forward, two backward."""

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
