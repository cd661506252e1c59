"""Linear attention: softmax attention with a kernel in place of the exponential, and hence with a fixed state."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssm_kit.layers._check import require_positive
from ssm_kit.layers._state import Layer, over_time, wide
from ssm_kit.ops import linear_attention, linear_attention_step
from ssm_kit.ops._check import require_choice, require_multiple


class LinearAttentionState(NamedTuple):
    """What linear attention remembers: Σ φ(k) (v, 1)ᵀ of each head."""

    memory: Tensor  # (B, H, features, head_dim + 1); the last column is the normaliser Σ φ(k)


FEATURE_MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "elu": lambda x: F.elu(x) + 1,
    "hedgehog": lambda x: torch.cat([x, -x], dim=-1).softmax(dim=-1),
}


class LinearAttention(Layer):
    """o_t = Σ_{s <= t} (φ(q_t)·φ(k_s)) v_s / Σ_{s <= t} φ(q_t)·φ(k_s) (arXiv 2006.16236).

    Nothing is ever forgotten and nothing corrected: the layer from which Mamba-2 (decay) and DeltaNet (correction)
    differ.

    The feature map φ is positive. elu(x) + 1, of that paper, gives every token some weight. Hedgehog (arXiv 2402.04347)
    asks for maps that can single one out, as softmax attention does. Here that is the softmax over x and -x, the form
    that fla gives it; its trainable map is part of the projections. It has twice as many features, so twice the state.

    Args:
        d_model: width of input and output.
        num_heads: H.
        head_dim: of queries, keys and values; None for d_model / num_heads.
        feature_map: "elu" or "hedgehog".

    Raises:
        ValueError: sizes below 1 or that do not divide, an unknown feature map.
    """

    def __init__(self, d_model: int, num_heads: int, head_dim: int | None = None, feature_map: str = "elu") -> None:
        super().__init__()
        require_positive(d_model=d_model, num_heads=num_heads, head_dim=head_dim)
        require_choice("feature_map", feature_map, tuple(FEATURE_MAPS))
        if head_dim is None:
            require_multiple("d_model", d_model, "num_heads", num_heads)
        self.d_model, self.num_heads, self.head_dim = d_model, num_heads, head_dim or d_model // num_heads
        self.feature_map = feature_map
        self.features = FEATURE_MAPS[feature_map](torch.zeros(self.head_dim)).numel()
        width = num_heads * self.head_dim
        self.q_proj = nn.Linear(d_model, width, bias=False)
        self.k_proj = nn.Linear(d_model, width, bias=False)
        self.v_proj = nn.Linear(d_model, width, bias=False)
        self.o_proj = nn.Linear(width, d_model, bias=False)

    def init_state(
        self, batch_size: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> LinearAttentionState:
        """Zeros; see `Layer.init_state`."""
        super().init_state(batch_size)
        weight, shape = self.q_proj.weight, (batch_size, self.num_heads, self.features, self.head_dim + 1)
        return LinearAttentionState(weight.new_zeros(shape, device=device, dtype=dtype or wide(weight.dtype)))

    def _advance(self, x: Tensor, state: LinearAttentionState) -> tuple[Tensor, LinearAttentionState]:
        q, k, v = (
            project(x).unflatten(-1, (self.num_heads, -1)).to(wide(x.dtype))  # (..., H, head_dim)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = map(FEATURE_MAPS[self.feature_map], (q, k))
        v = F.pad(v, (0, 1), value=1.0)  # one sum more: that of the weights
        attend = over_time(linear_attention, linear_attention_step, x, state.memory)
        o, memory = attend(q, k, v, scale=1.0)
        o = o[..., :-1] / (o[..., -1:] + 1e-6)  # 1e-6: φ may underflow to 0
        return self.o_proj(o.to(x.dtype).flatten(-2)), LinearAttentionState(memory.to(state.memory.dtype))
