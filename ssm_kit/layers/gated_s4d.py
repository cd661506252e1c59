"""Mamba's block around a time-invariant layer: a gate without selection."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssm_kit.layers import _init
from ssm_kit.layers._check import require_positive
from ssm_kit.layers._conv import convolve
from ssm_kit.layers._state import Layer, wide
from ssm_kit.layers.s4d import S4D


class GatedS4DState(NamedTuple):
    """What the layer remembers, the same amount after one token as after a million."""

    conv: Tensor  # (B, d_conv - 1, d_inner) the last inputs of the convolution
    ssm: Tensor  # (B, d_inner, N/2) complex; with init "real": (B, d_inner, N) real


class GatedS4D(Layer):
    """out_proj(S4D(SiLU(conv1d(x))) · SiLU(z)) with x, z = in_proj(u): Mamba's block with S4D for the selective scan.

    The row "Mamba, S4" of Mamba's comparison on selective copying (arXiv 2312.00752, Table 1). Against `Mamba` it
    shows what selection brings, against `S4D` what the gate does.

    Args:
        d_model: width of input and output.
        d_state: N, the real state entries per channel; even, except for init "real".
        d_conv: taps of the convolution.
        expand: d_inner = expand · d_model channels inside.
        init, dt_min, dt_max: of `S4D`.

    Raises:
        ValueError: sizes below 1, an odd d_state, an unknown init, a range that is none.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        *,
        init: str = "legs",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
    ) -> None:
        super().__init__()
        require_positive(d_model=d_model, d_conv=d_conv, expand=expand)
        self.d_model, self.d_conv, self.d_inner = d_model, d_conv, expand * d_model
        self.in_proj = nn.Linear(d_model, 2 * self.d_inner, bias=False)
        self.conv1d = _init.short_conv(self.d_inner, d_conv, bias=True)
        self.ssm = S4D(self.d_inner, d_state, init, dt_min=dt_min, dt_max=dt_max)
        del self.ssm.output_linear  # gate and out_proj take its place
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=False)

    def init_state(
        self, batch_size: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> GatedS4DState:
        """Zeros; see `Layer.init_state`. For a state of complex numbers, `dtype` is that of their parts."""
        taps = (batch_size, self.d_conv - 1, self.d_inner)
        (ssm,) = self.ssm.init_state(batch_size, device=device, dtype=dtype)
        return GatedS4DState(self.in_proj.weight.new_zeros(taps, device=device, dtype=dtype), ssm)

    def _given(self, x: Tensor, state: Any) -> Any:
        """As S4D: a sequence from the start has no earlier state to add."""
        given = super()._given(x, state)
        return given._replace(ssm=None) if state is None and x.ndim == 3 else given

    def _advance(self, x: Tensor, state: Any) -> tuple[Tensor, GatedS4DState]:
        u, z = self.in_proj(x).chunk(2, dim=-1)  # (..., d_inner)
        u, conv = convolve(u, self.conv1d, state.conv)
        u = u.to(wide(u.dtype))
        y, ssm = (self.ssm._run if x.ndim == 3 else self.ssm._tick)(u, state.ssm)
        y = (y + self.ssm.D * u).to(z.dtype) * F.silu(z)
        return self.out_proj(y), GatedS4DState(conv, ssm if state.ssm is None else ssm.to(state.ssm.dtype))
