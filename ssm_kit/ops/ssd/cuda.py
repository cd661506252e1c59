"""SSD on a GPU: Triton kernels as differentiable custom operators, so that torch.compile can take them as they are."""

import functools
from typing import Any

import torch
from torch import Tensor

from ssm_kit.ops._autograd import differentiable_once
from ssm_kit.ops._gpu import unsupported_dtype
from ssm_kit.ops.ssd import _launch
from ssm_kit.ops.ssd._launch import Inputs

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
    dtype = functools.reduce(torch.promote_types, (x.dtype, B.dtype, C.dtype))
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
