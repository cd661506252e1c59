"""What a sequence model costs: FLOPs, and bytes held while it generates.

Conventions, the same everywhere:
- One multiply-add is 2 FLOPs, so a linear layer costs 2 FLOPs per weight and token.
- Forward pass, one sequence. A causal token at position n attends to n keys, itself included; over a sequence that
  is L(L + 1)/2 pairs, half of the full square.
- Counted: linear layers, attention's scores and values, the recurrence. Not counted: softmax, norms, activations,
  gates, the width-4 convolution and the vocabulary (embedding and output layer): small, or equal in both kinds of
  model.
- All sizes are whole numbers. All functions are pure; anything else raises ValueError naming the argument.
"""

from dataclasses import dataclass, fields

SSM_HEAD_DIM = 64  # P, state size N and convolution width of Mamba-2: the defaults of its released code
SSM_STATE = 128
SSM_CONV_WIDTH = 4
SSM_CHUNK = 256


def kv_cache_bytes(
    attention_layers: int,
    kv_heads: int,
    head_dim: int,
    tokens: int = 1,
    dtype_bytes: int = 2,
    window: int | None = None,
) -> int:
    """Bytes of keys and values held for `tokens` tokens: layers · 2 · kv_heads · head_dim · tokens · dtype_bytes.

    `attention_layers` counts calls: a block that is called 13 times keeps 13 caches even if its weights are shared.
    With a sliding `window` (in tokens) no more than the window is held. dtype_bytes = 2 is bf16.
    """
    _whole(0, attention_layers=attention_layers, tokens=tokens)
    _whole(1, kv_heads=kv_heads, head_dim=head_dim, dtype_bytes=dtype_bytes)
    if window is not None:
        _whole(1, window=window)
        tokens = min(tokens, window)
    return attention_layers * 2 * kv_heads * head_dim * tokens * dtype_bytes


def recurrent_state_bytes(layers: int, channels: int, state: int, dtype_bytes: int = 2) -> int:
    """Bytes of recurrent state, the same at every length: layers · channels · state · dtype_bytes.

    `channels` is d_inner (Mamba-1), or heads · head_dim (Mamba-2, gated linear attention); `state` is N per channel.
    """
    _whole(0, layers=layers)
    _whole(1, channels=channels, state=state, dtype_bytes=dtype_bytes)
    return layers * channels * state * dtype_bytes


def conv_window_bytes(layers: int, channels: int, width: int = SSM_CONV_WIDTH, dtype_bytes: int = 2) -> int:
    """Bytes of past inputs that a causal convolution of this width keeps: layers · channels · (width − 1) · bytes."""
    _whole(0, layers=layers)
    _whole(1, channels=channels, width=width, dtype_bytes=dtype_bytes)
    return layers * channels * (width - 1) * dtype_bytes


def linear_flops(weights: int, tokens: int = 1) -> int:
    """FLOPs of linear layers with this many weights: 2 · weights · tokens."""
    _whole(0, weights=weights, tokens=tokens)
    return 2 * weights * tokens


def score_flops(context: int, query_width: int) -> int:
    """FLOPs of one token's scores QKᵀ and values AV in one attention layer: 4 · context · query_width.

    `context` counts the keys attended to, the token itself included; `query_width` = query heads · head dim. Fewer
    KV heads make the cache smaller, not this.
    """
    _whole(0, context=context)
    _whole(1, query_width=query_width)
    return 4 * context * query_width


def causal_score_flops(tokens: int, query_width: int) -> int:
    """FLOPs of scores and values over a causal sequence in one layer: Σₙ 4 · n · query_width = 2 · L(L + 1) · width."""
    _whole(0, tokens=tokens)
    _whole(1, query_width=query_width)
    return 2 * tokens * (tokens + 1) * query_width


def mamba1_scan_flops(tokens: int, channels: int, state: int) -> int:
    """FLOPs of Mamba-1's parallel scan in one layer (arXiv 2312.00752), about 9 · tokens · channels · state.

    Per channel and state entry: ΔA 1, exp 1, ΔBx 2, one combine of the scan 3 (a₁a₂ and a₂b₁ + b₂), C·h 2. An
    exponential counts as one FLOP here, which flatters it: on a GPU it costs several.
    """
    _whole(0, tokens=tokens)
    _whole(1, channels=channels, state=state)
    return 9 * tokens * channels * state


def ssd_flops(tokens: int, heads: int, head_dim: int, state: int, chunk: int = SSM_CHUNK) -> int:
    """FLOPs of Mamba-2's chunked SSD in one layer (arXiv 2405.21060): tokens · heads · (4NP + 2Q(N + P)).

    Per token and head: 2NP to write the chunk's state, 2NP to read it, and 2Q(N + P) for the quadratic form within
    a chunk of Q tokens, computed as a full square (the mask hides half of it, the matrix multiply does not skip it).
    """
    _whole(0, tokens=tokens)
    _whole(1, heads=heads, head_dim=head_dim, state=state, chunk=chunk)
    return tokens * heads * (4 * state * head_dim + 2 * chunk * (state + head_dim))


def ssd_step_flops(heads: int, head_dim: int, state: int) -> int:
    """FLOPs of one generated token in one Mamba-2 layer: 5 · heads · N · P (decay 1, write 2, read 2 per entry)."""
    _whole(1, heads=heads, head_dim=head_dim, state=state)
    return 5 * heads * state * head_dim


def crossover_context(weights: int, query_width: int) -> float:
    """Context at which one token's scores and values cost as much as linear layers of `weights`: weights / 2 width.

    Over a whole causal sequence, whose mean context is half its length, the two meet at twice this length.
    """
    _whole(1, weights=weights, query_width=query_width)
    return weights / (2 * query_width)


def crossover_tokens(state_bytes: int, cache_bytes_per_token: int) -> float:
    """Tokens at which a growing cache has become as large as a fixed state."""
    _whole(0, state_bytes=state_bytes)
    _whole(1, cache_bytes_per_token=cache_bytes_per_token)
    return state_bytes / cache_bytes_per_token


def _whole(minimum: int, **named: int) -> None:
    """Raise ValueError, naming the argument, unless every value is a whole number >= minimum."""
    for name, value in named.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise ValueError(f"{name} must be a whole number >= {minimum}; got {value!r}")


@dataclass(frozen=True)
class Work:
    """FLOPs by kind: `score` (attention's scores and values), `linear` (linear layers), `scan` (the recurrence)."""

    score: int
    linear: int
    scan: int

    @property
    def total(self) -> int:
        """All FLOPs counted."""
        return self.score + self.linear + self.scan


@dataclass(frozen=True)
class Memory:
    """Bytes held per sequence: `cache` (keys and values, grows), `state` and `conv` (recurrent, fixed)."""

    cache: int
    state: int
    conv: int

    @property
    def total(self) -> int:
        """All bytes counted."""
        return self.cache + self.state + self.conv


@dataclass(frozen=True)
class Stack:
    """The shape of a decoder: `layers` layers, each a sequence mixer and an MLP, no vocabulary.

    `attention_layers` of the layers, an argument of every method, mix with causal attention; all others with Mamba-2
    (d_inner = 2 d_model, head dim P = 64, state N = 128, convolution width 4, one group: its defaults). The MLP
    stays in every layer, so a Mamba-2 layer here has more weights than an attention layer: 6 d_model² and a little
    in the mixer, against 4 d_model² or less.
    """

    d_model: int
    layers: int
    query_heads: int
    kv_heads: int
    head_dim: int
    mlp_width: int
    mlp_matrices: int
    """3 for a gated MLP (SwiGLU), 2 for a plain one."""

    def __post_init__(self) -> None:
        _whole(1, **{field.name: getattr(self, field.name) for field in fields(self)})
        if 2 * self.d_model % SSM_HEAD_DIM:
            raise ValueError(f"d_model must be a multiple of {SSM_HEAD_DIM // 2}; got {self.d_model}")

    @property
    def query_width(self) -> int:
        """Query heads · head dim."""
        return self.query_heads * self.head_dim

    @property
    def attention_weights(self) -> int:
        """Weights of one attention mixer: Q and output projections, K and V."""
        return 2 * self.d_model * (self.query_width + self.kv_heads * self.head_dim)

    @property
    def mlp_weights(self) -> int:
        """Weights of one MLP."""
        return self.mlp_matrices * self.d_model * self.mlp_width

    @property
    def ssm_channels(self) -> int:
        """d_inner of one Mamba-2 mixer."""
        return 2 * self.d_model

    @property
    def ssm_heads(self) -> int:
        """Heads of one Mamba-2 mixer."""
        return self.ssm_channels // SSM_HEAD_DIM

    @property
    def ssm_weights(self) -> int:
        """Linear weights of one Mamba-2 mixer: in (to z, x, B, C and one step Δ per head) and out."""
        inner = self.ssm_channels
        return self.d_model * (2 * inner + 2 * SSM_STATE + self.ssm_heads) + inner * self.d_model

    def weights(self, attention_layers: int) -> int:
        """Linear weights of the whole stack."""
        ssm_layers = self._ssm_layers(attention_layers)
        mixers = attention_layers * self.attention_weights + ssm_layers * self.ssm_weights
        return mixers + self.layers * self.mlp_weights

    def sequence_work(self, attention_layers: int, tokens: int) -> Work:
        """FLOPs of one forward pass over a sequence (prefill, or the forward half of training)."""
        ssm_layers = self._ssm_layers(attention_layers)
        return Work(
            score=attention_layers * causal_score_flops(tokens, self.query_width),
            linear=linear_flops(self.weights(attention_layers), tokens),
            scan=ssm_layers * ssd_flops(tokens, self.ssm_heads, SSM_HEAD_DIM, SSM_STATE),
        )

    def token_work(self, attention_layers: int, context: int) -> Work:
        """FLOPs of one generated token that attends to `context` tokens, itself included."""
        ssm_layers = self._ssm_layers(attention_layers)
        return Work(
            score=attention_layers * score_flops(context, self.query_width),
            linear=linear_flops(self.weights(attention_layers)),
            scan=ssm_layers * ssd_step_flops(self.ssm_heads, SSM_HEAD_DIM, SSM_STATE),
        )

    def memory(self, attention_layers: int, tokens: int, dtype_bytes: int = 2) -> Memory:
        """Bytes held for one sequence of `tokens` tokens."""
        ssm_layers = self._ssm_layers(attention_layers)
        conv_channels = self.ssm_channels + 2 * SSM_STATE  # the convolution runs over x, B and C together
        return Memory(
            cache=kv_cache_bytes(attention_layers, self.kv_heads, self.head_dim, tokens, dtype_bytes),
            state=recurrent_state_bytes(ssm_layers, self.ssm_channels, SSM_STATE, dtype_bytes),
            conv=conv_window_bytes(ssm_layers, conv_channels, SSM_CONV_WIDTH, dtype_bytes),
        )

    def crossover_context(self) -> float:
        """Context at which the score term of an all-attention stack equals its linear layers, per token."""
        return crossover_context(self.attention_weights + self.mlp_weights, self.query_width)

    def _ssm_layers(self, attention_layers: int) -> int:
        _whole(0, attention_layers=attention_layers)
        if attention_layers > self.layers:
            raise ValueError(f"attention_layers must be at most layers = {self.layers}; got {attention_layers}")
        return self.layers - attention_layers


PRESETS = {
    # GPT-2 small (openai/gpt-2, 124M parameters with its vocabulary): full multi-head attention, plain MLP of 4 d.
    "130M": Stack(d_model=768, layers=12, query_heads=12, kv_heads=12, head_dim=64, mlp_width=3072, mlp_matrices=2),
    # Llama-3-8B (arXiv 2407.21783, table 3): 8 KV heads, SwiGLU.
    "8B": Stack(d_model=4096, layers=32, query_heads=32, kv_heads=8, head_dim=128, mlp_width=14336, mlp_matrices=3),
    # Llama-3-70B (the same table).
    "70B": Stack(d_model=8192, layers=80, query_heads=64, kv_heads=8, head_dim=128, mlp_width=28672, mlp_matrices=3),
}
