"""The S4 layer: HiPPO's diagonal plus low-rank model per channel, trained as a convolution and run as a recurrence."""

import torch
from torch import Tensor

from ssm_kit.layers import _init
from ssm_kit.layers._lti import TimeInvariant, as_complex, complex_parameter
from ssm_kit.layers._state import wide
from ssm_kit.lti import convolve, discretize, dplr_kernel, dplr_response, dplr_step, legs_dplr
from ssm_kit.ops._check import require_multiple


class S4(TimeInvariant):
    """S4 (arXiv 2111.00396) with A = Λ − P P*, started as HiPPO-LegS, and the bilinear rule.

    Over a sequence the output is the convolution of the input with the Cauchy kernel, through the FFT; a step costs
    O(N). Sharing P on both sides of the low-rank term keeps every eigenvalue in the left half plane while Λ is, which
    A = Λ − P Q* does not. Two things differ from S4 as published. The layer trains C, not C̃ = C(I − Ā^L), which is
    tied to one length L; this costs one power of a dense Ā per call. And it takes and returns its state.

    Args:
        d_model: width of input and output; each channel has its own model.
        d_state: N, the real state entries per channel, even; N/2 complex ones are kept.
        dt_min, dt_max: initial step sizes are drawn log-uniformly from this range.

    Raises:
        ValueError: sizes below 1, an odd d_state, a range that is none.
    """

    def __init__(self, d_model: int, d_state: int = 64, *, dt_min: float = 0.001, dt_max: float = 0.1) -> None:
        super().__init__(d_model, d_state, dt_min, dt_max)
        require_multiple("d_state", d_state, "the size of a conjugate pair,", 2)
        self.states = (d_state // 2, True)
        start = legs_dplr(d_state)
        Lambda, P, B = (torch.from_numpy(part[d_state // 2 :]).expand(d_model, -1) for part in start[:2] + start[3:4])
        self.log_A_real = _init.spared((-Lambda.real).log().float())
        self.A_imag = _init.spared(Lambda.imag.float())
        self.P, self.B = complex_parameter(P), complex_parameter(B)
        self.C = complex_parameter(torch.randn(d_model, d_state // 2, dtype=torch.complex64))

    def _model(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Λ, P, B, C with both of each conjugate pair, (d_model, N), and the step sizes (d_model,)."""
        step = torch.exp(self.log_dt.to(wide(self.log_dt.dtype)))
        real = -torch.exp(self.log_A_real.to(step.dtype))
        halves = torch.complex(real, self.A_imag.to(step.dtype)), *map(as_complex, (self.P, self.B, self.C))
        Lambda, P, B, C = (_pairs(half) for half in halves)
        return Lambda, P, B, C, step

    def _run(self, u: Tensor, h: Tensor | None) -> tuple[Tensor, Tensor]:
        Lambda, P, B, C, step = self._model()
        length, A = u.shape[1], torch.diag_embed(Lambda) - P[:, :, None] * P.conj()[:, None, :]
        A_bar, _ = discretize(A, B, step, "bilinear")  # (D, N, N)
        power = torch.linalg.matrix_power(A_bar, length)
        C_tilde = C - torch.einsum("dn,dnm->dm", C, power)
        y = convolve(u, dplr_kernel(Lambda, P, P, B, C_tilde, step, length).real)
        # Each wave of the input settles into a response. Their sum is the state after an input that repeats for ever;
        # Ā^L of it is what the earlier repetitions left there, and h takes their place.
        waves = torch.fft.fft(u, dim=1) * _roots(length, u)[:, None] / length
        settled = torch.einsum("bld,ldn->bdn", waves, dplr_response(Lambda, P, P, B, step, length))
        before = -settled
        if h is not None:
            before = before + (h := _pairs(h))
            # What h adds to the outputs is C Ā^(i+1) h: the response of Aᵀ to a source whose B̄ is C̃, meeting Ā h.
            source = C_tilde / step[:, None] - torch.einsum("dn,dnm->dm", C_tilde, A) / 2
            rows = dplr_response(Lambda, P.conj(), P.conj(), source, step, length)
            y = y + torch.fft.ifft(torch.einsum("ldn,dnm,bdm->bld", rows, A_bar, h), dim=1).real
        after = settled + torch.einsum("dnm,bdm->bdn", power, before)
        return y, after[..., : self.d_state // 2]

    def _tick(self, u: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        Lambda, P, B, C, step = self._model()
        h = dplr_step(Lambda, P, P, B, step, _pairs(h), u)
        return (C * h).sum(-1).real, h[..., : self.d_state // 2]


def _pairs(half: Tensor) -> Tensor:
    """(..., N/2) to (..., N): the conjugates put beside."""
    return torch.cat([half, half.conj()], -1)


def _roots(length: int, like: Tensor) -> Tensor:
    """exp(−2πi j / L) for j = 0 .. L − 1."""
    phase = torch.arange(length, device=like.device, dtype=like.dtype) * (-2 * torch.pi / length)
    return torch.polar(torch.ones_like(phase), phase)
