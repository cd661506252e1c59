"""Zamba's shared block: one attention and one MLP, whose weights are used at many depths of the model."""

import torch
from torch import Tensor, nn

from ssm_kit.layers._check import require_input, require_positive
from ssm_kit.layers._state import Layer
from ssm_kit.layers.attention import Attention, KVCache
from ssm_kit.layers.mlp import MLP
from ssm_kit.layers.norm import RMSNorm


class SharedAttention(Layer):
    """linear[call](MLP(norm(attention(norm([x, embeddings]))))), without residuals (arXiv 2405.16712, §2, eq. 6).

    x is the stream at this depth, `embeddings` the stream as it entered the model. Only the last linear map differs
    from call to call, and in Zamba2 (arXiv 2411.15242) a low-rank term in the MLP's gate and up projections. Sharing
    the weights does not share the past: every call has a cache of its own, because its keys are computed from another
    x. Heads divide up the joint input, and scores are scaled by (head_dim / 2)^-1/2.

    Parameters have the names and shapes of transformers' Zamba: those of its shared_transf here, and as linear.0,
    linear.1, ... those of the linear map of its hybrid layers. Zamba2's two shared blocks are two of these.

    Args:
        d_model: width of x, of the embeddings and of the output.
        num_heads: of the attention, a divisor of 2 d_model; heads have 2 d_model / num_heads numbers.
        d_ff: width inside the MLP.
        num_calls: places of the model from which the block is called.
        kind: of the MLP, as there, and one with a gate; Zamba's is "geglu".
        norm_eps: of both norms.
        adapter_rank: of the low-rank term of every call; None for no such term. It is 0 at first, as in LoRA.
        rope: base θ of rotary positions (Zamba2-7B); None for no positions.

    Raises:
        ValueError: sizes below 1 or that do not divide, an unknown kind, or one without a gate.
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        d_ff: int,
        num_calls: int = 1,
        *,
        kind: str = "geglu",
        norm_eps: float = 1e-5,
        adapter_rank: int | None = None,
        rope: float | None = None,
    ) -> None:
        super().__init__()
        require_positive(d_model=d_model, num_heads=num_heads, num_calls=num_calls, adapter_rank=adapter_rank)
        if kind == "relu2":
            raise ValueError(f"kind must have a gate; got {kind!r}")
        self.d_model = d_model
        self.input_layernorm = RMSNorm(2 * d_model, norm_eps)
        scale = (d_model / num_heads) ** -0.5
        self.self_attn = Attention(2 * d_model, num_heads, d_out=d_model, scale=scale, rope=rope)
        self.pre_ff_layernorm = RMSNorm(d_model, norm_eps)
        self.feed_forward = MLP(d_model, d_ff, kind)
        self.adapter = None
        if adapter_rank is not None:
            self.adapter = nn.ModuleList(_adapter(d_model, adapter_rank, 2 * d_ff) for _ in range(num_calls))
        self.linear = nn.ModuleList(nn.Linear(d_model, d_model, bias=False) for _ in range(num_calls))

    def forward(  # type: ignore[override]
        self, x: Tensor, state: KVCache | None = None, *, embeddings: Tensor, call: int = 0
    ) -> tuple[Tensor, KVCache]:
        """Run over a sequence.

        Args:
            x: (B, L, d_model), real floating, L >= 1.
            state: the cache of this call; None for nothing.
            embeddings: (B, L, d_model).
            call: which call this is, 0 <= call < num_calls.

        Returns:
            y (B, L, d_model), and the cache of this call after the last step.

        Raises:
            ValueError: x, embeddings or state of another shape or kind, a call that there is not.
        """
        require_input(x, "B L", self.d_model)
        return self._run(x, state, embeddings, call)

    def step(  # type: ignore[override]
        self, x: Tensor, state: KVCache | None, *, embeddings: Tensor, call: int = 0
    ) -> tuple[Tensor, KVCache]:
        """Run one step: x and embeddings (B, d_model). Errors are those of a sequence."""
        require_input(x, "B", self.d_model)
        return self._run(x, state, embeddings, call)

    def init_state(
        self, batch_size: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> KVCache:
        """An empty cache, for one call; see `Layer.init_state`."""
        return self.self_attn.init_state(batch_size, device=device, dtype=dtype)

    def _run(self, x: Tensor, state: KVCache | None, embeddings: Tensor, call: int) -> tuple[Tensor, KVCache]:
        if not isinstance(embeddings, Tensor) or embeddings.shape != x.shape:
            got = tuple(embeddings.shape) if isinstance(embeddings, Tensor) else type(embeddings).__name__
            raise ValueError(f"embeddings must have the shape of x, {tuple(x.shape)}; got {got}")
        if isinstance(call, bool) or not isinstance(call, int) or not 0 <= call < len(self.linear):
            raise ValueError(f"call must be an integer in 0 .. {len(self.linear) - 1}; got {call!r}")
        joint = self.input_layernorm(torch.cat([x, embeddings], dim=-1))
        advance = self.self_attn if x.ndim == 3 else self.self_attn.step
        y, state = advance(joint, state)
        return self.linear[call](self._feed(self.pre_ff_layernorm(y), call)), state

    def _feed(self, x: Tensor, call: int) -> Tensor:
        """The MLP, with the low-rank term of this call."""
        mlp = self.feed_forward
        gate, up = mlp.gate_proj(x), mlp.up_proj(x)
        if self.adapter is not None:
            low_rank = self.adapter[call](x).chunk(2, dim=-1)
            gate, up = gate + low_rank[0], up + low_rank[1]
        return mlp.gated(gate, up)


def _adapter(inputs: int, width: int, outputs: int) -> nn.Sequential:
    """A linear map through a narrow middle, 0 at first (arXiv 2106.09685)."""
    adapter = nn.Sequential(nn.Linear(inputs, width, bias=False), nn.Linear(width, outputs, bias=False))
    nn.init.zeros_(adapter[1].weight)  # type: ignore[arg-type]
    return adapter
