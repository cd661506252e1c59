"""The S4D layer: a diagonal model per channel, trained as a convolution and run as a recurrence."""

import torch
from torch import Tensor, nn

from ssm_kit.layers import _init
from ssm_kit.layers._lti import TimeInvariant, as_complex, complex_parameter
from ssm_kit.layers._state import wide
from ssm_kit.lti import convolve, discretize, kernel, s4d_init


class S4D(TimeInvariant):
    """S4D (arXiv 2206.11893): K_i = 2 Re Σ_n C_n B̄_n Ā_nⁱ with zero-order hold and B = 1.

    Over a sequence the output is the convolution of the input with K, through the FFT. Unlike S4 as published the
    layer also takes and returns its state, so a sequence may come in pieces.

    Args:
        d_model: width of input and output; each channel has its own model.
        d_state: N, the real state entries per channel; even, except for init "real". N/2 complex ones are kept.
        init: "legs", "lin", "inv" or "real": see `ssm_kit.lti.s4d_init`.
        dt_min, dt_max: initial step sizes are drawn log-uniformly from this range.

    Raises:
        ValueError: sizes below 1, an odd d_state, an unknown init, a range that is none.
    """

    def __init__(
        self, d_model: int, d_state: int = 64, init: str = "legs", *, dt_min: float = 0.001, dt_max: float = 0.1
    ) -> None:
        super().__init__(d_model, d_state, dt_min, dt_max)
        A = torch.from_numpy(s4d_init(d_state, init)).expand(d_model, -1)  # (D, N/2), or (D, N) real
        self.states = (A.shape[-1], A.is_complex())
        self.log_A_real = _init.spared((-A.real).log().float())
        if A.is_complex():
            self.A_imag = _init.spared(A.imag.float())
            self.C = complex_parameter(torch.randn(A.shape, dtype=torch.complex64))
        else:
            self.C = nn.Parameter(torch.randn(A.shape))

    def _model(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """ΔA, Ā, B̄ and the row that is read out by its real part, each (d_model, states)."""
        step = torch.exp(self.log_dt.to(wide(self.log_dt.dtype)))
        A = -torch.exp(self.log_A_real.to(step.dtype))
        if self.states[1]:  # one of each conjugate pair is kept, the other one doubles the real part
            A, C = torch.complex(A, self.A_imag.to(step.dtype)), 2 * as_complex(self.C)
        else:
            C = self.C.to(step.dtype)
        return step[:, None] * A, *discretize(A, torch.ones_like(A), step, "zoh"), C

    def _run(self, u: Tensor, h: Tensor | None) -> tuple[Tensor, Tensor]:
        dA, A_bar, B_bar, C = self._model()
        length = u.shape[1]
        y = convolve(u, kernel(A_bar, B_bar, C, length).real.to(u.dtype))
        powers = torch.exp(dA * torch.arange(length, device=u.device)[:, None, None])  # Āⁱ, (L, D, N/2)
        after = B_bar * torch.einsum("bld,ldn->bdn", u.to(powers.dtype), powers.flip(0))
        if h is not None:
            h = A_bar * h
            y = y + torch.einsum("bdn,ldn->bld", C * h, powers).real
            after = after + powers[-1] * h
        return y, after

    def _tick(self, u: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        _, A_bar, B_bar, C = self._model()
        h = A_bar * h + B_bar * u[..., None]
        return (C * h).sum(-1).real, h
