"""Linear attention and the delta rules on a GPU: Triton kernels in three launches forward, two backward."""

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from ssm_kit.ops._gpu import unsupported_dtype
from ssm_kit.ops.gated_delta import _gradients, _inside, _memory, _step, _unit
from ssm_kit.ops.gated_delta._arguments import EPSILON

MAX_KEY = 256
"""The largest K: a slice of the memory, 64 × K, must fit the registers."""

_INSIDE = {"num_warps": 4}
_FORWARD = {"BV": 64, "num_warps": 4, "STAGES": 2}
_BACKWARD = {"BV": 64, "num_warps": 4, "STAGES": 2}
_GRADIENTS = {"BV": 64, "num_warps": 8, "STAGES": 1}
_STEP = {"BV": 32, "num_warps": 4}


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
        q, k = _unit_rows(q), _unit_rows(k)
    given = [x for x in (q, k, v, g, beta, initial) if x is not None]
    keep = torch.is_grad_enabled() and any(x.requires_grad for x in given)
    o, state, *_ = _forward(q, k, v, g, beta, initial, cu_seqlens, scale, keep)
    return o, state


class _Plan(NamedTuple):
    """Sizes, and how they are cut."""

    sequences: int
    length: int  # of every sequence, or of all together where they are packed
    H: int
    HV: int
    K: int
    V: int
    chunk: int
    packed: bool
    precision: str

    @property
    def slots(self) -> int:
        """Chunks of all sequences; of packed ones as many as there can be."""
        if self.packed:
            return self.length // self.chunk + self.sequences
        return self.sequences * triton.cdiv(self.length, self.chunk)

    @property
    def memory(self) -> tuple[int, int, int, int]:
        return self.sequences, self.HV, self.K, self.V

    def walk(self, slice_: int) -> tuple[int, int]:
        return triton.cdiv(self.V, slice_), self.sequences * self.HV


def _plan(q: Tensor, v: Tensor, cu_seqlens: Tensor | None) -> _Plan:
    batch, length, H, K = q.shape
    single = q.dtype == torch.float32
    sequences = batch if cu_seqlens is None else len(cu_seqlens) - 1
    tensor_cores = not q.is_cuda or torch.cuda.get_device_capability(q.device)[0] >= 8
    precision = ("tf32x3" if single else "tf32") if tensor_cores else "ieee"
    HV, V = v.shape[2:]
    return _Plan(sequences, length, H, HV, K, V, 32 if single else 64, cu_seqlens is not None, precision)


def _rows(x: Tensor) -> tuple[Tensor, int]:
    """(B, L, ...): the tensor, copied if it must be, and the distance from one step to the next, also across rows."""
    if not (x[0, 0].is_contiguous() and x.stride(0) == x.shape[1] * x.stride(1)):
        x = x.contiguous()
    return x, x.stride(1)


def _sequence_of(plan: _Plan, bounds: Tensor | None) -> Tensor | None:
    """The sequence that each slot belongs to, found on the GPU."""
    if bounds is None:
        return None
    firsts = bounds[:-1] // plan.chunk + torch.arange(plan.sequences, device=bounds.device)
    return torch.searchsorted(firsts, torch.arange(plan.slots, device=bounds.device), right=True) - 1


def _kinds(plan: _Plan, beta: Tensor | None) -> dict[str, Any]:
    return {
        "K": plan.K,
        "K_PAD": max(16, triton.next_power_of_2(plan.K)),
        "C": plan.chunk,
        "PACKED": plan.packed,
        "CORRECT": beta is not None,
        "PRECISION": plan.precision,
    }


def _run_forward(q, k, v, g, beta, initial, bounds, scale, keep):
    plan = _plan(q, v, bounds)
    kinds, slices = _kinds(plan, beta), _slice(plan, _FORWARD)
    (q, stride_q), (k, stride_k), (v, stride_v) = _rows(q), _rows(k), _rows(v)
    (g, stride_g), (beta, stride_beta) = ((None, 0) if x is None else _rows(x) for x in (g, beta))
    exact = {"dtype": torch.float32, "device": q.device}
    square = (plan.slots, plan.HV, plan.chunk, plan.chunk)
    scores, resolvent = q.new_empty(square), q.new_empty(square if beta is not None else 0)
    factors = torch.empty((plan.slots, plan.HV, 3, plan.chunk), **exact)
    _inside.inside[(plan.slots, plan.HV)](
        q, k, g, beta, bounds, _sequence_of(plan, bounds), scores, resolvent, factors, scale,
        plan.length, plan.H, plan.HV, stride_q, stride_k, stride_g, stride_beta,
        GATED=g is not None, **kinds, **_INSIDE,
    )  # fmt: skip
    o, final = q.new_empty(v.shape), torch.empty(plan.memory, **exact)
    corrected = q.new_empty(v.shape if keep and beta is not None else 0)
    states = q.new_empty((plan.slots, plan.HV, plan.V, plan.K) if keep else 0)
    _memory.forward_walk[plan.walk(slices["BV"])](
        q, k, v, factors, scores, resolvent, initial, bounds, o, corrected, states, final, scale,
        plan.length, plan.H, plan.HV, stride_q, stride_k, stride_v,
        V=plan.V, KEEP=keep, **kinds, **slices,
    )  # fmt: skip
    return o, final, scores, resolvent, factors, corrected, states


def _slice(plan: _Plan, how: dict[str, int]) -> dict[str, int]:
    return how | {"BV": min(how["BV"], max(16, triton.next_power_of_2(plan.V)))}


def _run_backward(do, dfinal, q, k, v, g, beta, bounds, scale, scores, resolvent, factors, corrected, states):
    plan = _plan(q, v, bounds)
    kinds = _kinds(plan, beta)
    do, dfinal = do.contiguous(), dfinal.contiguous()
    (q, stride_q), (k, stride_k) = _rows(q), _rows(k)
    g, stride_g = (None, 0) if g is None else _rows(g)
    exact = {"dtype": torch.float32, "device": q.device}
    dwritten, dstates, dinitial = q.new_empty(v.shape), torch.empty_like(states), torch.empty(plan.memory, **exact)
    how = _slice(plan, _BACKWARD)
    _memory.backward_walk[plan.walk(how["BV"])](
        q, k, factors, scores, resolvent, do, dfinal, bounds, dwritten, dstates, dinitial, scale,
        plan.length, plan.H, plan.HV, stride_q, stride_k, V=plan.V, **kinds, **how,
    )  # fmt: skip
    spread = (*v.shape[:3], plan.K)
    dq, dk = q.new_empty(spread), q.new_empty(spread)
    dv = q.new_empty(v.shape) if beta is not None else dwritten
    dg, dbeta = (torch.empty(v.shape[:3] if x is not None else 0, **exact) for x in (g, beta))
    _gradients.gradients[(plan.slots, plan.HV)](
        q, k, g, factors, scores, v.contiguous() if beta is None else corrected, states, do, dwritten, dstates, bounds,
        _sequence_of(plan, bounds), dq, dk, dv, dg, dbeta, scale, plan.length, plan.H, plan.HV, stride_q, stride_k,
        stride_g, V=plan.V, GATED=g is not None, **kinds, **_slice(plan, _GRADIENTS),
    )  # fmt: skip
    if plan.H < plan.HV:
        dq, dk = (x.unflatten(2, (plan.H, -1)).sum(3) for x in (dq, dk))
    return dq, dk, dv, dg, dbeta, dinitial


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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _run_forward(q, k, v, g, beta, initial, bounds, scale, keep)


@_forward.register_fake
def _(q, k, v, g, beta, initial, bounds, scale, keep):
    plan = _plan(q, v, bounds)
    square = (plan.slots, plan.HV, plan.chunk, plan.chunk)
    return (
        q.new_empty(v.shape),
        q.new_empty(plan.memory, dtype=torch.float32),
        q.new_empty(square),
        q.new_empty(square if beta is not None else 0),
        q.new_empty((plan.slots, plan.HV, 3, plan.chunk), dtype=torch.float32),
        q.new_empty(v.shape if keep and beta is not None else 0),
        q.new_empty((plan.slots, plan.HV, plan.V, plan.K) if keep else 0),
    )


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
    corrected: Tensor,
    states: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _run_backward(do, dfinal, q, k, v, g, beta, bounds, scale, scores, resolvent, factors, corrected, states)


@_backward.register_fake
def _(do, dfinal, q, k, v, g, beta, bounds, scale, scores, resolvent, factors, corrected, states):
    plan = _plan(q, v, bounds)
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
    plan = _plan(q, v, bounds)
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
    width = min(_STEP["BV"], triton.next_power_of_2(V))
    _step.step[(triton.cdiv(V, width), batch * HV)](
        q, k, v, g, beta, state, o, following, scale, H, HV, EPSILON, K=K, V=V, K_PAD=triton.next_power_of_2(K),
        BV=width, UNIT=unit, num_warps=_STEP["num_warps"],
    )  # fmt: skip
    return o, following


@_step_op.register_fake
def _(q, k, v, g, beta, state, scale, unit):
    return q.new_empty(v.shape), state.new_empty(state.shape, dtype=torch.float32)


@torch.library.custom_op("ssm_kit::unit_rows", mutates_args=())
def _unit_rows(x: Tensor) -> Tensor:
    x = x.contiguous()
    y = torch.empty_like(x)
    _unit.forward[_row_grid(x)](x, y, x.numel() // x.shape[-1], EPSILON, **_row_block(x))
    return y


@torch.library.custom_op("ssm_kit::unit_rows_backward", mutates_args=())
def _unit_rows_backward(dy: Tensor, x: Tensor) -> Tensor:
    dy, x = dy.contiguous(), x.contiguous()
    dx = torch.empty_like(x)
    _unit.backward[_row_grid(x)](x, dy, dx, x.numel() // x.shape[-1], EPSILON, **_row_block(x))
    return dx


def _row_block(x: Tensor) -> dict[str, int]:
    width = triton.next_power_of_2(x.shape[-1])
    return {"K": x.shape[-1], "K_PAD": width, "ROWS": max(1, 4096 // width)}


def _row_grid(x: Tensor) -> tuple[int]:
    return (triton.cdiv(x.numel() // x.shape[-1], _row_block(x)["ROWS"]),)


@_unit_rows.register_fake
def _(x):
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@_unit_rows_backward.register_fake
def _(dy, x):
    return torch.empty_like(x, memory_format=torch.contiguous_format)


_unit_rows.register_autograd(
    lambda ctx, dy: _unit_rows_backward(dy, *ctx.saved_tensors),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)
