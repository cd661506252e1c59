"""Initial values that several layers share."""

import math

import torch
from torch import Tensor, nn

from ssm_kit.layers._check import require_range


def delta_bias(size: int, dt_min: float, dt_max: float, floor: float) -> Tensor:
    """A bias (size,) such that softplus(bias) is a step size Δ drawn log-uniformly from [dt_min, dt_max].

    Mamba (arXiv 2312.00752, §3.6) prints a uniform draw; its code, and all models after it, draw the logarithm
    uniformly and raise what lies below the floor. Raises ValueError unless 0 < dt_min <= dt_max and floor > 0.
    """
    require_range("(dt_min, dt_max)", dt_min, dt_max)
    if not floor > 0:
        raise ValueError(f"dt_init_floor must be > 0; got {floor}")
    low, high = math.log(dt_min), math.log(dt_max)
    return inverse_softplus(torch.exp(low + (high - low) * torch.rand(size)).clamp(min=floor))


def inverse_softplus(y: Tensor) -> Tensor:
    """The x with softplus(x) = y, for y >= 0: y + ln(1 - exp(-y)), exact for small y too."""
    return y + torch.log(-torch.expm1(-y))


def spared(tensor: Tensor) -> nn.Parameter:
    """A parameter marked `_no_weight_decay`: pulling it to zero would change time scales, not shrink a weight.

    The mark is an attribute, as in mamba_ssm: torch drops it where it makes a new parameter, as in a deep copy.
    """
    parameter = nn.Parameter(tensor)
    parameter._no_weight_decay = True  # type: ignore[attr-defined]
    return parameter


def short_conv(channels: int, width: int, bias: bool) -> nn.Conv1d:
    """The weights of a causal convolution as the checkpoints hold them: weight (channels, 1, width), bias (channels,).

    Only the weights are used; `ssm_kit.ops.causal_conv1d` does the work.
    """
    return nn.Conv1d(channels, channels, width, groups=channels, bias=bias)
