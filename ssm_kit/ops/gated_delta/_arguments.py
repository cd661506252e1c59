"""What the functions of this room ask of their arguments, and the form in which torch's scans and steps take them."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ssm_kit.ops import _check

EPSILON = 1e-6  # under the root of the L2 norm, as in the published layers


class Form(NamedTuple):
    """What the checked arguments agree on."""

    memory: tuple[int, int, int]  # HV, K, V
    heads: int  # H
    dtype: torch.dtype  # to compute in, where nothing is fused
    scale: float  # factor of the outputs


def check(
    axes: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    beta: Tensor | None,
    state: Tensor | None,
    scale: float | None,
) -> Form:
    """Check the arguments; `axes` are the letters before the heads, "B L" or "B".

    Raises:
        ValueError: see `gated_delta_rule`. The shape of `state` is left to the caller.
    """
    require_given(q=q, k=k, v=v)
    _check.require_floating(q=q, k=k, v=v, g=g, beta=beta, state=state)
    _check.require_one_device(q=q, k=k, v=v, g=g, beta=beta, state=state)
    size = _check.bind_shapes(
        q=(q, f"{axes} H K"),
        k=(k, f"{axes} H K"),
        v=(v, f"{axes} HV V"),
        g=(g, f"{axes} HV"),
        beta=(beta, f"{axes} HV"),
    )
    _check.require_multiple("the heads HV of v", size["HV"], "the heads H of q", size["H"])
    dtype = _check.compute_dtype(q, k, v, g, beta, state)
    return Form((size["HV"], size["K"], size["V"]), size["H"], dtype, factor(scale, size["K"]))


def prepare(
    form: Form, q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, beta: Tensor | None, qk_l2norm: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """q, k, v, g, beta in one dtype, with as many query and key heads as value heads, g = 0 where there is none."""
    shared = form.memory[0] // form.heads
    q, k = (spread(x.to(form.dtype), shared, qk_l2norm) for x in (q, k))
    g = v.new_zeros(v.shape[:-1], dtype=form.dtype) if g is None else g.to(form.dtype)
    return q, k, v.to(form.dtype), g, None if beta is None else beta.to(form.dtype)


def spread(x: Tensor, shared: int, unit: bool) -> Tensor:
    """Heads (..., H, K) as (..., HV, K), each for `shared` value heads that are neighbours; of length one if asked."""
    if unit:
        x = x * torch.rsqrt(x.square().sum(-1, keepdim=True) + EPSILON)
    return x if shared == 1 else x.repeat_interleave(shared, dim=-2)


def factor(scale: float | None, width: int) -> float:
    """The factor of the outputs, K^-1/2 unless given."""
    if scale is None:
        return width**-0.5
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not math.isfinite(scale):
        raise ValueError(f"scale must be None or a finite number; got {scale!r}")
    return float(scale)


def require_given(**tensors: Tensor | None) -> None:
    """Raise ValueError if an argument that an operator cannot do without is None."""
    for name, tensor in tensors.items():
        if tensor is None:
            raise ValueError(f"{name} must be a torch.Tensor; got None")
