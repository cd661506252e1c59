"""Gated DeltaNet: a matrix memory per head that forgets, and that corrects what it holds under a key."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssm_kit.layers import _init
from ssm_kit.layers._check import require_positive, require_range
from ssm_kit.layers._conv import convolve
from ssm_kit.layers._state import Layer, over_time, wide
from ssm_kit.layers.norm import GatedRMSNorm
from ssm_kit.ops import gated_delta_rule, gated_delta_rule_step
from ssm_kit.ops._check import require_multiple


class GatedDeltaNetState(NamedTuple):
    """What Gated DeltaNet remembers, the same amount after one token as after a million."""

    conv: Tensor  # (B, d_conv - 1, 2 H K + HV V) the last inputs of the convolution
    memory: Tensor  # (B, HV, K, V)


class GatedDeltaNet(Layer):
    """Gated DeltaNet's mixer (arXiv 2412.06464, §3.4) as Qwen3-Next has it.

    q, k, v = SiLU(conv1d(q, k, v)), queries and keys scaled to length 1;  β = σ(b);  ln α = -A softplus(a + dt_bias);
    o = gated_delta_rule(q, k, v, α, β);  out_proj(RMSNorm(o) · SiLU(z)), the norm over every head by itself and
    before the gate, where Mamba-2 norms after it.

    Parameters have the names and shapes of Qwen3-Next's checkpoints, so `load_state_dict` takes those of transformers'
    mixer. In the rows of in_proj_qkvz and in_proj_ba all that belongs to one key head stands together: q, k, its
    values and their z; b and a of its values.

    Args:
        d_model: width of input and output.
        num_k_heads: H heads of queries and keys.
        num_v_heads: HV heads of values, a multiple of H; query and key head h serves those from h · HV / H on.
        head_k_dim: K.
        head_v_dim: V.
        d_conv: taps of the convolution, which has no bias.
        A_init_range: initial decay rates A are drawn uniformly from this range.
        dt_min, dt_max: initial step sizes softplus(dt_bias) are drawn log-uniformly from this range,
        dt_init_floor: and raised to this. transformers starts from dt_bias = 1, which forgets within a few tokens.
        norm_eps: of the gated norm.

    Raises:
        ValueError: sizes below 1 or that do not divide, ranges that are none.
    """

    def __init__(
        self,
        d_model: int,
        num_k_heads: int,
        num_v_heads: int,
        head_k_dim: int = 128,
        head_v_dim: int = 128,
        d_conv: int = 4,
        *,
        A_init_range: tuple[float, float] = (0.01, 16.0),
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init_floor: float = 1e-4,
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        require_positive(d_model=d_model, num_k_heads=num_k_heads, num_v_heads=num_v_heads, d_conv=d_conv)
        require_positive(head_k_dim=head_k_dim, head_v_dim=head_v_dim)
        require_multiple("num_v_heads", num_v_heads, "num_k_heads", num_k_heads)
        require_range("A_init_range", *A_init_range)
        self.d_model, self.num_k_heads, self.num_v_heads, self.d_conv = d_model, num_k_heads, num_v_heads, d_conv
        self.head_k_dim, self.head_v_dim, self.values_per_key = head_k_dim, head_v_dim, num_v_heads // num_k_heads
        keys, values = num_k_heads * head_k_dim, num_v_heads * head_v_dim
        self.in_proj_qkvz = nn.Linear(d_model, 2 * keys + 2 * values, bias=False)
        self.in_proj_ba = nn.Linear(d_model, 2 * num_v_heads, bias=False)
        self.conv1d = _init.short_conv(2 * keys + values, d_conv, bias=False)
        self.dt_bias = _init.spared(_init.delta_bias(num_v_heads, dt_min, dt_max, dt_init_floor))
        self.A_log = _init.spared(torch.empty(num_v_heads).uniform_(*A_init_range).log())
        self.norm = GatedRMSNorm(head_v_dim, eps=norm_eps, norm_before_gate=True)
        self.out_proj = nn.Linear(values, d_model, bias=False)

    def init_state(
        self, batch_size: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> GatedDeltaNetState:
        """Zeros; see `Layer.init_state`."""
        super().init_state(batch_size)
        weight, memory = self.conv1d.weight, (batch_size, self.num_v_heads, self.head_k_dim, self.head_v_dim)
        return GatedDeltaNetState(
            conv=weight.new_zeros(batch_size, self.d_conv - 1, len(weight), device=device, dtype=dtype),
            memory=weight.new_zeros(memory, device=device, dtype=dtype or wide(weight.dtype)),
        )

    def _advance(self, x: Tensor, state: GatedDeltaNetState) -> tuple[Tensor, GatedDeltaNetState]:
        qkv, z, b, a = self._project(x)
        qkv, conv = convolve(qkv, self.conv1d, state.conv)
        keys = self.num_k_heads * self.head_k_dim
        q, k, v = qkv.split((keys, keys, self.num_v_heads * self.head_v_dim), dim=-1)
        q, k = (heads.unflatten(-1, (self.num_k_heads, -1)) for heads in (q, k))  # (..., H, K)
        v = v.unflatten(-1, (self.num_v_heads, -1))  # (..., HV, V)
        a = a.to(wide(a.dtype))
        g = -torch.exp(self.A_log.to(a.dtype)) * F.softplus(a + self.dt_bias)  # (..., HV)
        rule = over_time(gated_delta_rule, gated_delta_rule_step, x, state.memory)
        o, memory = rule(q, k, v, g=g, beta=torch.sigmoid(b), qk_l2norm=True)
        return self.out_proj(self.norm(o, z).flatten(-2)), GatedDeltaNetState(conv, memory.to(state.memory.dtype))

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The input of the convolution (..., 2 H K + HV V), z (..., HV, V), and b and a (..., HV)."""
        values = self.values_per_key * self.head_v_dim
        qkvz = self.in_proj_qkvz(x).unflatten(-1, (self.num_k_heads, -1))
        q, k, v, z = qkvz.split((self.head_k_dim, self.head_k_dim, values, values), dim=-1)  # (..., H, .)
        b, a = self.in_proj_ba(x).unflatten(-1, (self.num_k_heads, -1)).chunk(2, dim=-1)  # (..., H, HV / H)
        qkv = torch.cat([part.flatten(-2) for part in (q, k, v)], dim=-1)
        return qkv, z.flatten(-2).unflatten(-1, (self.num_v_heads, -1)), b.flatten(-2), a.flatten(-2)
