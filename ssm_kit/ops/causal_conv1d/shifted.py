"""The short causal convolution as one multiply-add per tap, in place, with a backward pass of the same kind.

torch's own depthwise convolution wants channels before time, so that on a CPU its backward pass and the copies around
it take several times as long as these W passes over memory that is already in order.
"""

from typing import Any

import torch
from torch import Tensor

from ssm_kit.ops._autograd import differentiable_once


def convolve(padded: Tensor, weight: Tensor) -> Tensor:
    """The same as `reference.convolve`, with the same arguments; differentiable once."""
    y: Tensor = _Convolve.apply(padded, weight)
    return y


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, padded: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(padded, weight)
        taps = weight.T.contiguous()  # (W, D): a tap's channels side by side, as those of x are
        length = padded.shape[1] - len(taps) + 1
        y = padded[:, :length] * taps[0]
        for k in range(1, len(taps)):
            y.addcmul_(padded[:, k : k + length], taps[k])
        return y

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        padded, weight = ctx.saved_tensors
        taps, length = weight.T.contiguous(), dy.shape[1]
        dpadded, dtaps = torch.zeros_like(padded), torch.empty_like(taps)
        for k in range(len(taps)):
            dpadded[:, k : k + length].addcmul_(dy, taps[k])
            dtaps[k] = (dy * padded[:, k : k + length]).sum((0, 1))
        return dpadded, dtaps.T
