"""The Mamba-2 block: all parameters from one projection, one decay per head, a gated norm at the end."""

import math
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ssm_kit.layers import _init
from ssm_kit.layers._check import require_positive, require_range
from ssm_kit.layers._conv import convolve
from ssm_kit.layers._state import Layer, over_time, wide
from ssm_kit.layers.norm import GatedRMSNorm
from ssm_kit.ops import ssd, ssd_step
from ssm_kit.ops._check import require_multiple


class Mamba2State(NamedTuple):
    """What Mamba-2 remembers, the same amount after one token as after a million."""

    conv: Tensor  # (B, d_conv - 1, d_inner + 2 G N) the last inputs of the convolution
    ssm: Tensor  # (B, H, P, N)


class Mamba2(Layer):
    """Mamba-2's mixer (arXiv 2405.21060, §7 and figure 6) as its released code has it.

    z, x, B, C, Δ = in_proj(u);  x, B, C = SiLU(conv1d(x, B, C));  y = ssd(x, softplus(Δ + dt_bias), A, B, C) + D x;
    out_proj(RMSNorm(y · SiLU(z))), the mean square taken in each of the G groups by itself.

    Parameters have the names and shapes of the checkpoints, so `load_state_dict` takes those of mamba_ssm's and
    transformers' mixers: Mamba-2, Nemotron-H, Zamba2. Two differences of transformers 5.23 from mamba_ssm: it starts
    from A = 1 .. H instead of a uniform draw, and its Nemotron-H holds Δ above 0.001 (dt_limit=(0.001, inf)) over a
    sequence but not in a single step. Here both do.

    Args:
        d_model: width of input and output.
        d_state: N, states per channel.
        d_conv: taps of the convolution.
        expand: d_inner = expand · d_model channels inside,
        headdim: in heads of P channels.
        nheads: H; d_inner is then nheads · headdim, and expand is not used (Nemotron-H). None for d_inner / headdim.
        ngroups: G pairs of B and C, each shared by H / G heads.
        chunk_size: steps per chunk of the scan; it changes speed and memory, not the result.
        A_init_range: initial decay rates -A are drawn uniformly from this range.
        dt_min, dt_max: initial step sizes are drawn log-uniformly from this range,
        dt_init_floor: and raised to this.
        dt_limit: step sizes are held in this range, always.
        conv_bias: of the convolution.
        bias: of in_proj and out_proj.
        norm_eps: of the gated norm.

    Raises:
        ValueError: sizes below 1 or that do not divide, ranges that are none.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 128,
        d_conv: int = 4,
        expand: int = 2,
        headdim: int = 64,
        nheads: int | None = None,
        ngroups: int = 1,
        chunk_size: int = 64,
        *,
        A_init_range: tuple[float, float] = (1.0, 16.0),
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init_floor: float = 1e-4,
        dt_limit: tuple[float, float] = (0.0, math.inf),
        conv_bias: bool = True,
        bias: bool = False,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        require_positive(d_model=d_model, d_state=d_state, d_conv=d_conv, expand=expand, headdim=headdim)
        require_positive(nheads=nheads, ngroups=ngroups, chunk_size=chunk_size)
        require_range("A_init_range", *A_init_range)
        require_range("dt_limit", *dt_limit, zero=True)
        self.d_model, self.d_state, self.d_conv, self.headdim, self.ngroups = d_model, d_state, d_conv, headdim, ngroups
        self.d_inner = expand * d_model if nheads is None else nheads * headdim
        require_multiple("d_inner = expand * d_model", self.d_inner, "headdim", headdim)
        self.nheads = self.d_inner // headdim
        require_multiple("the number of heads", self.nheads, "ngroups", ngroups)
        self.chunk_size = chunk_size
        # Softplus increases: limits of Δ are limits of its argument, and the scan can take the softplus itself.
        self._raw_limit = _init.inverse_softplus(torch.tensor(dt_limit, dtype=torch.float64, device="cpu")).tolist()
        self.d_xbc = self.d_inner + 2 * ngroups * d_state
        self.in_proj = nn.Linear(d_model, self.d_inner + self.d_xbc + self.nheads, bias=bias)
        self.conv1d = _init.short_conv(self.d_xbc, d_conv, conv_bias)
        self.dt_bias = _init.spared(_init.delta_bias(self.nheads, dt_min, dt_max, dt_init_floor))
        self.A_log = _init.spared(torch.empty(self.nheads).uniform_(*A_init_range).log())
        self.D = _init.spared(torch.ones(self.nheads))
        self.norm = GatedRMSNorm(self.d_inner, self.d_inner // ngroups, norm_eps)
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=bias)

    def init_state(
        self, batch_size: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Mamba2State:
        """Zeros; see `Layer.init_state`."""
        super().init_state(batch_size)
        weight, memory = self.in_proj.weight, (batch_size, self.nheads, self.headdim, self.d_state)
        return Mamba2State(
            conv=weight.new_zeros(batch_size, self.d_conv - 1, self.d_xbc, device=device, dtype=dtype),
            ssm=weight.new_zeros(memory, device=device, dtype=dtype or wide(weight.dtype)),
        )

    def _advance(self, x: Tensor, state: Mamba2State) -> tuple[Tensor, Mamba2State]:
        z, xbc, delta = self.in_proj(x).split((self.d_inner, self.d_xbc, self.nheads), dim=-1)
        xbc, conv = convolve(xbc, self.conv1d, state.conv)
        groups = self.ngroups * self.d_state
        heads, B, C = xbc.split((self.d_inner, groups, groups), dim=-1)
        heads = heads.unflatten(-1, (self.nheads, self.headdim))  # (..., H, P)
        B, C = (tensor.unflatten(-1, (self.ngroups, self.d_state)) for tensor in (B, C))  # (..., G, N)
        delta = (delta.to(wide(delta.dtype)) + self.dt_bias).clamp(*self._raw_limit)  # (..., H)
        A = -torch.exp(self.A_log.to(delta.dtype))
        scan = over_time(partial(ssd, chunk_size=self.chunk_size), ssd_step, x, state.ssm)
        y, ssm = scan(heads, delta, A, B, C, D=self.D, delta_softplus=True)
        return self.out_proj(self.norm(y.flatten(-2), z)), Mamba2State(conv, ssm.to(state.ssm.dtype))
