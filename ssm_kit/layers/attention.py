"""Softmax attention with a cache: grouped heads, rotary positions or none, a sliding window, an output gate."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssm_kit.layers._check import require_positive, require_state
from ssm_kit.layers._state import Layer, wide
from ssm_kit.layers.norm import RMSNorm
from ssm_kit.ops._check import require_multiple


class KVCache(NamedTuple):
    """The keys and values of the past: it grows with every token, up to window - 1 of them if there is a window."""

    k: Tensor  # (B, KV heads, T, head_dim), rotated
    v: Tensor  # (B, KV heads, T, head_dim)
    position: Tensor  # (B,) int64: the tokens seen, also those that the window has dropped


class Attention(Layer):
    """Causal attention, with the options by which the attention of the public hybrids differs.

    Jamba, Nemotron-H and Mamba-2-Hybrid: grouped heads, no positions at all. RecurrentGemma: one key head, rotary
    positions on half of every head, a window, a bias on the output only. Qwen3-Next: rotary positions on a quarter,
    RMS norms on queries and keys, and a gate on the output. Zamba: input twice as wide as the output, another scale.

    Args:
        d_model: width of the input, and of the output unless `d_out` is given.
        num_heads: query heads.
        num_kv_heads: key and value heads, a divisor of num_heads; None for as many (arXiv 2305.13245).
        head_dim: None for d_model / num_heads.
        d_out: width of the output; None for d_model.
        rope: base θ of the rotary positions (arXiv 2104.09864); None for no positions.
        rotary_fraction: part of every head that is turned; its width, rounded down, must be even.
        window: a query sees this many tokens, itself included; None for all.
        scale: of the scores; None for head_dim^-1/2.
        qk_norm: RMS norm on every query and key head, its weight stored as the difference from 1.
        norm_eps: of these norms.
        output_gate: heads are multiplied by the sigmoid of a second half of q_proj (Qwen3-Next; arXiv 2505.06708).
        bias: of the query, key and value projections.
        out_bias: of the output projection; None for as `bias`.

    Raises:
        ValueError: sizes below 1 or that do not divide, a rotary width that is odd or none, rope <= 0.
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        num_kv_heads: int | None = None,
        head_dim: int | None = None,
        *,
        d_out: int | None = None,
        rope: float | None = None,
        rotary_fraction: float = 1.0,
        window: int | None = None,
        scale: float | None = None,
        qk_norm: bool = False,
        norm_eps: float = 1e-6,
        output_gate: bool = False,
        bias: bool = False,
        out_bias: bool | None = None,
    ) -> None:
        super().__init__()
        require_positive(d_model=d_model, num_heads=num_heads, num_kv_heads=num_kv_heads, head_dim=head_dim)
        require_positive(d_out=d_out, window=window)
        kv_heads = num_kv_heads or num_heads
        require_multiple("num_heads", num_heads, "num_kv_heads", kv_heads)
        if head_dim is None:
            require_multiple("d_model", d_model, "num_heads", num_heads)
        self.d_model, self.num_heads, self.num_kv_heads = d_model, num_heads, kv_heads
        self.head_dim = head_dim or d_model // num_heads
        self.rope, self.rotary_dim = rope, 0 if rope is None else _rotary_dim(rope, rotary_fraction, self.head_dim)
        self.window, self.scale, self.output_gate = window, scale, output_gate
        width = num_heads * self.head_dim
        self.q_proj = nn.Linear(d_model, 2 * width if output_gate else width, bias=bias)
        self.k_proj = nn.Linear(d_model, kv_heads * self.head_dim, bias=bias)
        self.v_proj = nn.Linear(d_model, kv_heads * self.head_dim, bias=bias)
        self.o_proj = nn.Linear(width, d_out or d_model, bias=bias if out_bias is None else out_bias)
        if qk_norm:
            self.q_norm = RMSNorm(self.head_dim, norm_eps, zero_centered=True)
            self.k_norm = RMSNorm(self.head_dim, norm_eps, zero_centered=True)
        self.qk_norm = qk_norm

    def init_state(
        self, batch_size: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> KVCache:
        """An empty cache; see `Layer.init_state`."""
        super().init_state(batch_size)
        weight, shape = self.k_proj.weight, (batch_size, self.num_kv_heads, 0, self.head_dim)
        position = torch.zeros(batch_size, dtype=torch.int64, device=device or weight.device)
        k, v = (weight.new_zeros(shape, device=device, dtype=dtype) for _ in range(2))
        return KVCache(k, v, position)

    def _given(self, x: Tensor, state: Any) -> Any:
        if not (isinstance(state, KVCache) and isinstance(state.k, Tensor) and state.k.ndim == 4):
            return super()._given(x, state)
        past = state.k.shape[2]
        if self.window is not None and past > self.window - 1:
            raise ValueError(f"state must hold at most window - 1 = {self.window - 1} tokens; got {past}")
        empty = self.init_state(x.shape[0], device="meta")
        heads = empty.k.new_empty(x.shape[0], self.num_kv_heads, past, self.head_dim)
        require_state(state, empty._replace(k=heads, v=heads))
        return state

    def _advance(self, x: Tensor, state: KVCache) -> tuple[Tensor, KVCache]:
        steps = x if x.ndim == 3 else x[:, None]  # (B, L, d_model)
        q, k, v, gate = self._project(steps)
        if self.rope is not None:
            positions = state.position[:, None] + torch.arange(steps.shape[1], device=x.device)  # (B, L)
            q, k = (rotate(heads, positions, self.rope, self.rotary_dim) for heads in (q, k))
        k, v = (torch.cat([old.to(new.dtype), new], dim=2) for old, new in ((state.k, k), (state.v, v)))
        y = self._attend(q, k, v).transpose(1, 2).flatten(2)  # (B, L, H · head_dim)
        y = self.o_proj(y if gate is None else y * torch.sigmoid(gate))
        k, v = (self._kept(new).to(old.dtype) for old, new in ((state.k, k), (state.v, v)))
        return y if x.ndim == 3 else y[:, 0], KVCache(k, v, state.position + steps.shape[1])

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Queries (B, H, L, head_dim), keys, values (B, KV heads, L, head_dim) and the gate (B, L, H · head_dim)."""
        q = self.q_proj(x).unflatten(-1, (self.num_heads, -1))
        k, v = (project(x).unflatten(-1, (self.num_kv_heads, -1)) for project in (self.k_proj, self.v_proj))
        gate = None
        if self.output_gate:
            q, gate = q.chunk(2, dim=-1)  # every head of q_proj holds a query and its gate
            gate = gate.flatten(2)
        if self.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (heads.transpose(1, 2) for heads in (q, k, v))
        return q, k, v, gate

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend from the last L of T tokens to all that each may see: (B, H, L, head_dim)."""
        length, total = q.shape[2], k.shape[2]
        whole = length == total and (self.window is None or total <= self.window)
        mask = None
        if not whole and length > 1:  # a single query may see all that the cache holds
            query = torch.arange(total - length, total, device=q.device)[:, None]
            distance = query - torch.arange(total, device=q.device)
            mask = (distance >= 0) if self.window is None else (distance >= 0) & (distance < self.window)
        return F.scaled_dot_product_attention(
            q, k, v, mask, is_causal=whole and length > 1, scale=self.scale, enable_gqa=self.num_heads != k.shape[1]
        )

    def _kept(self, heads: Tensor) -> Tensor:
        """What later queries can still see; cut off in memory too, not only in view."""
        drop = 0 if self.window is None else heads.shape[2] - (self.window - 1)
        return heads[:, :, drop:].clone() if drop > 0 else heads


def rotate(heads: Tensor, positions: Tensor, theta: float, width: int) -> Tensor:
    """Turn the first `width` numbers of every head by its position: number i and i + width/2 by p · θ^(-2i / width).

    The halves are paired, as in all checkpoints named here, not neighbours, as in the paper (arXiv 2104.09864, eq. 34).

    Args:
        heads: (B, H, L, head_dim).
        positions: (B, L).
        theta: the base.
        width: even, at most head_dim.

    Returns:
        heads, turned, in their shape and dtype.
    """
    dtype = wide(heads.dtype)
    exponents = torch.arange(0, width, 2, device=heads.device, dtype=dtype) / width
    angles = positions[:, None, :, None].to(dtype) * theta**-exponents  # (B, 1, L, width / 2)
    cos, sin = angles.cos(), angles.sin()
    first, second, rest = heads.tensor_split((width // 2, width), dim=-1)
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return torch.cat([turned.to(heads.dtype), rest], dim=-1)


def _rotary_dim(rope: float, fraction: float, head_dim: int) -> int:
    width = int(head_dim * fraction)
    if not rope > 0:
        raise ValueError(f"rope must be > 0, or None for no positions; got {rope}")
    if not 0 < fraction <= 1 or width < 2 or width % 2:
        expected = f"a number in (0, 1] with an even part of head_dim = {head_dim}"
        raise ValueError(f"rotary_fraction must be {expected}; got {fraction}")
    return width
