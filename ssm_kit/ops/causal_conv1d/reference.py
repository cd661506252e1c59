"""The short causal convolution as its definition reads: a sum over taps."""

import torch
from torch import Tensor


def convolve(padded: Tensor, weight: Tensor) -> Tensor:
    """y_t = Σ_k w_k x_{t - W + 1 + k}, channel by channel: the last tap meets the present input.

    Args:
        padded: (B, W - 1 + L, D), the W - 1 inputs before the sequence, then its L.
        weight: (D, W).

    Returns:
        y (B, L, D).
    """
    width = weight.shape[1]
    length = padded.shape[1] - width + 1
    return torch.stack([weight[:, k] * padded[:, k : k + length] for k in range(width)]).sum(0)
