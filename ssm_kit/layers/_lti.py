"""What S4 and S4D share: one time-invariant model per channel, then a layer that mixes the channels."""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssm_kit.layers import _init
from ssm_kit.layers._check import require_positive, require_range
from ssm_kit.layers._state import Layer, wide


class S4State(NamedTuple):
    """What S4 and S4D remember, the same amount after one step as after a million."""

    ssm: Tensor  # (B, d_model, N/2) complex; S4D-Real: (B, d_model, N) real


class TimeInvariant(Layer):
    """y = GLU(output_linear(GELU(ssm(x) + D x))), as in the released S4 and S4D.

    A subclass sets `states`, defines `_run` over a sequence and `_tick` for one step.
    """

    states: tuple[int, bool]
    """Entries of the state of one channel, and whether they are complex."""

    def __init__(self, d_model: int, d_state: int, dt_min: float, dt_max: float) -> None:
        super().__init__()
        require_positive(d_model=d_model, d_state=d_state)
        require_range("(dt_min, dt_max)", dt_min, dt_max)
        self.d_model, self.d_state = d_model, d_state
        low, high = math.log(dt_min), math.log(dt_max)
        self.log_dt = _init.spared(low + (high - low) * torch.rand(d_model))
        self.D = nn.Parameter(torch.randn(d_model))
        self.output_linear = nn.Linear(d_model, 2 * d_model)

    def init_state(
        self, batch_size: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> S4State:
        """Zeros; see `Layer.init_state`. For a state of complex numbers, `dtype` is that of their parts."""
        super().init_state(batch_size)
        entries, paired = self.states
        dtype = wide(dtype or self.D.dtype)
        dtype = torch.promote_types(dtype, torch.complex64) if paired else dtype
        return S4State(self.D.new_zeros(batch_size, self.d_model, entries, device=device, dtype=dtype))

    def _given(self, x: Tensor, state: Any) -> Any:
        """A sequence from the start has no earlier state to add: None stays None, and saves that work."""
        return None if state is None and x.ndim == 3 else super()._given(x, state)

    def _advance(self, x: Tensor, state: Any) -> tuple[Tensor, S4State]:
        u = x.to(wide(torch.promote_types(x.dtype, self.D.dtype)))
        if state is None:
            y, ssm = self._run(u, None)
        else:
            y, ssm = (self._run if x.ndim == 3 else self._tick)(u, state.ssm)
            ssm = ssm.to(state.ssm.dtype)
        return F.glu(self.output_linear(F.gelu(y + self.D * u).to(x.dtype)), -1), S4State(ssm)

    def _run(self, u: Tensor, h: Tensor | None) -> tuple[Tensor, Tensor]:
        """Outputs (B, L, d_model) of inputs u of that shape, by convolution, and the state after them."""
        raise NotImplementedError

    def _tick(self, u: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """The output (B, d_model) of one input u, and the state after it."""
        raise NotImplementedError


def complex_parameter(values: Tensor) -> nn.Parameter:
    """A complex tensor stored as pairs of real numbers, (..., 2), which every optimiser and file format understands."""
    return nn.Parameter(torch.view_as_real(values.to(torch.complex64)).clone())


def as_complex(pairs: Tensor) -> Tensor:
    """The complex tensor of such a parameter, in at least single precision."""
    return torch.view_as_complex(pairs.to(wide(pairs.dtype)))
