"""RMS norms: the plain one, and the one with a gate that closes Mamba-2 and Gated DeltaNet."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssm_kit.layers._check import require_positive
from ssm_kit.layers._state import wide
from ssm_kit.ops._check import require_multiple


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) times a weight, over the last axis (arXiv 1910.07467), computed in at least float32.

    Args:
        size: of the last axis.
        eps: added to the mean square.
        zero_centered: the weight is stored as its difference from 1, as RecurrentGemma and Qwen3-Next do, so that
            weight decay pulls it to 1 and not to 0.

    Raises:
        ValueError: a size below 1.
    """

    def __init__(self, size: int, eps: float = 1e-6, *, zero_centered: bool = False) -> None:
        super().__init__()
        require_positive(size=size)
        self.eps, self.zero_centered = eps, zero_centered
        self.weight = nn.Parameter(torch.zeros(size) if zero_centered else torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (..., size); the result has its dtype."""
        dtype = wide(x.dtype)
        weight = self.weight.to(dtype)
        return F.rms_norm(x.to(dtype), weight.shape, weight + 1 if self.zero_centered else weight, self.eps).to(x.dtype)


class GatedRMSNorm(nn.Module):
    """RMSNorm(x · SiLU(z)), or with `norm_before_gate` RMSNorm(x) · SiLU(z).

    The public models differ here: Mamba-2, Nemotron-H and Zamba2 gate first and norm each of their groups by itself;
    Gated DeltaNet and Qwen3-Next norm every head first and gate afterwards. Only the second lets z scale the output.

    Args:
        size: of the last axis.
        group_size: numbers that share one mean square; None for all.
        eps: added to the mean square.
        norm_before_gate: see above.

    Raises:
        ValueError: sizes below 1, or a size that is no multiple of group_size.
    """

    def __init__(
        self, size: int, group_size: int | None = None, eps: float = 1e-5, *, norm_before_gate: bool = False
    ) -> None:
        super().__init__()
        require_positive(size=size, group_size=group_size)
        self.group_size = group_size or size
        require_multiple("size", size, "group_size", self.group_size)
        self.eps, self.norm_before_gate = eps, norm_before_gate
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Normalise x (..., size) and gate it with z of the same shape; the result has the dtype of x."""
        dtype = wide(x.dtype)
        gate = F.silu(z.to(dtype))
        y = x.to(dtype) if self.norm_before_gate else x.to(dtype) * gate
        y = F.rms_norm(y.unflatten(-1, (-1, self.group_size)), (self.group_size,), eps=self.eps).flatten(-2)
        y = y * self.weight.to(dtype)
        return (y * gate if self.norm_before_gate else y).to(x.dtype)
