"""The Mamba block: a short convolution, a scan whose parameters depend on the input, and a gate."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssm_kit.layers import _init
from ssm_kit.layers._check import require_positive
from ssm_kit.layers._conv import convolve
from ssm_kit.layers._state import Layer, over_time, wide
from ssm_kit.layers.norm import RMSNorm
from ssm_kit.ops import selective_scan, selective_scan_step
from ssm_kit.ops._check import require_choice, require_multiple


class MambaState(NamedTuple):
    """What Mamba remembers, the same amount after one token as after a million."""

    conv: Tensor  # (B, d_conv - 1, d_inner) the last inputs of the convolution
    ssm: Tensor  # (B, d_inner, d_state)


class Mamba(Layer):
    """Mamba's mixer (arXiv 2312.00752, §3.4 and figure 3) as its released code has it.

    x, z = in_proj(u);  x = SiLU(conv1d(x));  Δ, B, C = x_proj(x);  y = selective_scan(x, softplus(dt_proj(Δ)), A, B, C)
    with the skip D x and the gate SiLU(z);  out_proj(y).

    Parameters have the names and shapes of the checkpoints, so `load_state_dict` takes those of mamba_ssm's and
    transformers' mixers: Mamba, Falcon Mamba (bcdt_norm="weightless") and Jamba (bcdt_norm="learned"); Zamba's
    (num_heads=2) have another layout, which `zamba_weights` translates. conv1d and dt_proj hold weights only, the
    operators read them: what is wrapped around these modules (an adapter, a hook) is never called.

    Args:
        d_model: width of input and output.
        d_state: N, states per channel.
        d_conv: taps of the convolution.
        expand: d_inner = expand · d_model channels inside.
        dt_rank: R, the width through which Δ is computed; "auto" for d_model / 16, rounded up.
        dt_min, dt_max: initial step sizes are drawn log-uniformly from this range,
        dt_init_floor: and raised to this.
        conv_bias: of the convolution.
        bias: of in_proj and out_proj.
        bcdt_norm: RMS norms on B, C and the low-rank Δ: None (Mamba), "weightless" (Falcon Mamba, arXiv 2410.05355)
            or "learned" (Jamba, arXiv 2403.19887); they keep large models from diverging.
        norm_eps: of these norms.
        num_heads: channels in this many equal heads, each with x_proj and dt_proj, hence with B and C, of its own;
            their weights have one axis more, (num_heads, ...), and act on their own head only.

    Raises:
        ValueError: sizes below 1 or that do not divide, a range of step sizes that is none, an unknown norm.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | str = "auto",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init_floor: float = 1e-4,
        conv_bias: bool = True,
        bias: bool = False,
        *,
        bcdt_norm: str | None = None,
        norm_eps: float = 1e-6,
        num_heads: int = 1,
    ) -> None:
        super().__init__()
        require_positive(d_model=d_model, d_state=d_state, d_conv=d_conv, expand=expand, num_heads=num_heads)
        require_multiple("d_inner = expand * d_model", expand * d_model, "num_heads", num_heads)
        require_choice("bcdt_norm", bcdt_norm, (None, "weightless", "learned"))
        self.d_model, self.d_state, self.d_conv, self.d_inner = d_model, d_state, d_conv, expand * d_model
        self.dt_rank, self.num_heads = rank(d_model, dt_rank), num_heads
        self.bcdt_norm, self.norm_eps = bcdt_norm, norm_eps
        self.in_proj = nn.Linear(d_model, 2 * self.d_inner, bias=bias)
        self.conv1d = _init.short_conv(self.d_inner, d_conv, conv_bias)
        self.x_proj = _linear(num_heads, self.d_inner // num_heads, self.dt_rank + 2 * d_state)
        self.dt_proj = _linear(num_heads, self.dt_rank, self.d_inner // num_heads)
        nn.init.uniform_(self.dt_proj.weight, -(self.dt_rank**-0.5), self.dt_rank**-0.5)
        self.dt_proj.bias = _init.spared(_init.delta_bias(self.d_inner, dt_min, dt_max, dt_init_floor))
        self.A_log = _init.spared(torch.arange(1.0, d_state + 1).log().repeat(self.d_inner, 1))  # S4D-Real
        self.D = _init.spared(torch.ones(self.d_inner))
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=bias)
        if bcdt_norm == "learned":
            self.dt_layernorm = RMSNorm(self.dt_rank, norm_eps)
            self.b_layernorm = RMSNorm(d_state, norm_eps)
            self.c_layernorm = RMSNorm(d_state, norm_eps)

    def init_state(
        self, batch_size: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> MambaState:
        """Zeros; see `Layer.init_state`."""
        super().init_state(batch_size)
        weight = self.in_proj.weight
        return MambaState(
            conv=weight.new_zeros(batch_size, self.d_conv - 1, self.d_inner, device=device, dtype=dtype),
            ssm=weight.new_zeros(
                batch_size, self.d_inner, self.d_state, device=device, dtype=dtype or wide(weight.dtype)
            ),
        )

    def _advance(self, x: Tensor, state: MambaState) -> tuple[Tensor, MambaState]:
        x, z = self._project(x)  # (..., d_inner)
        x, conv = convolve(x, self.conv1d, state.conv)
        delta, B, C = self._select(x)
        scan = over_time(selective_scan, selective_scan_step, x, state.ssm)
        A = -torch.exp(self.A_log.to(wide(self.A_log.dtype)))
        bias = self.dt_proj.bias
        y, ssm = scan(x, delta, A, B, C, D=self.D, z=z, delta_bias=bias, delta_softplus=True)
        return self.out_proj(y), MambaState(conv, ssm.to(state.ssm.dtype))

    def _project(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The input of the convolution and the gate, (..., d_inner) each."""
        x, z = self.in_proj(u).chunk(2, dim=-1)
        return x, z

    def _select(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the input selects: Δ before bias and softplus (..., d_inner), B and C (..., N) or (..., heads, N)."""
        selected = self.x_proj(x if self.num_heads == 1 else x.unflatten(-1, (self.num_heads, -1)))
        delta, B, C = self._norm(*selected.split((self.dt_rank, self.d_state, self.d_state), dim=-1))
        if self.num_heads == 1:  # the scan adds the bias, in at least float32
            return F.linear(delta, self.dt_proj.weight), B, C
        return self.dt_proj(delta).flatten(-2), B, C

    def _norm(self, delta: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.bcdt_norm is None:
            return delta, B, C
        if self.bcdt_norm == "learned":
            return self.dt_layernorm(delta), self.b_layernorm(B), self.c_layernorm(C)
        delta, B, C = (
            F.rms_norm(t.to(wide(t.dtype)), t.shape[-1:], eps=self.norm_eps).to(t.dtype) for t in (delta, B, C)
        )
        return delta, B, C


class HeadLinear(nn.Module):
    """A linear map of its own for every head; its weight (heads, outputs, inputs) starts as that of `nn.Linear`."""

    bias: nn.Parameter  # of dt_proj; held here for the scan, which adds it

    def __init__(self, heads: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads, outputs, inputs).uniform_(-(inputs**-0.5), inputs**-0.5))

    def forward(self, x: Tensor) -> Tensor:
        """x (..., heads, inputs) to (..., heads, outputs)."""
        return torch.einsum("...hi,hoi->...ho", x, self.weight)


def zamba_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of transformers' Zamba mixer as `Mamba(..., num_heads=...)` takes it.

    In Zamba's in_proj the rows of x and of the gate alternate, here x comes first; its weights of heads are parameters
    of the mixer itself. Raises KeyError for a state dict of another kind.
    """
    heads, d_head, _ = weights["A_log"].shape
    named = dict(weights)
    for name in ("x_proj_weight", "dt_proj_weight"):
        named[name.replace("_weight", ".weight")] = named.pop(name)
    named["dt_proj.bias"] = named.pop("dt_proj_bias").flatten()
    named["A_log"], named["D"] = weights["A_log"].flatten(0, 1), weights["D"].flatten()
    for name in ("in_proj.weight", "in_proj.bias"):
        if name in named:
            named[name] = named[name].unflatten(0, (heads * d_head, 2)).transpose(0, 1).flatten(0, 1)
    return named


def _linear(heads: int, inputs: int, outputs: int) -> nn.Linear | HeadLinear:
    return nn.Linear(inputs, outputs, bias=False) if heads == 1 else HeadLinear(heads, inputs, outputs)


def rank(d_model: int, dt_rank: int | str) -> int:
    """The width R through which Mamba computes Δ: the number itself, or d_model / 16 rounded up for "auto"."""
    if dt_rank == "auto":
        return math.ceil(d_model / 16)
    if isinstance(dt_rank, str):
        raise ValueError(f'dt_rank must be "auto" or an integer >= 1; got {dt_rank!r}')
    require_positive(dt_rank=dt_rank)
    return dt_rank
