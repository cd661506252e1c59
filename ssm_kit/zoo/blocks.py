"""What the blocks of the public models are: their sizes, and the bytes that each of them remembers.

One class per kind of block. Sizes are those of the released checkpoint; `layer` holds what else a layer of
`ssm_kit.layers` needs to be told to be of this architecture.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ssm_kit.cost import conv_window_bytes, kv_cache_bytes, recurrent_state_bytes


@dataclass(frozen=True, kw_only=True)
class Block:
    """One operation of a model. What mixes no tokens remembers nothing."""

    mixers: ClassVar[tuple[str, ...]] = ()
    """What it mixes tokens with, "attention" or "recurrent" or both; nothing in an MLP or in experts."""
    layer: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the layer in `ssm_kit.layers`, its sizes left out."""
    missing: str = ""
    """What no layer of this package does; there is no tiny model with such a block."""

    def kv_bytes(self, tokens: int, dtype_bytes: int) -> int:
        """Bytes of keys and values after so many tokens."""
        return 0

    def state_bytes(self, dtype_bytes: int) -> int:
        """Bytes of recurrent state, the same at every length."""
        return 0

    def conv_bytes(self, dtype_bytes: int) -> int:
        """Bytes of past inputs that a short convolution keeps."""
        return 0


@dataclass(frozen=True, kw_only=True)
class Attention(Block):
    """Softmax attention. With a `window`, only so many tokens are seen, and held."""

    mixers: ClassVar[tuple[str, ...]] = ("attention",)
    kv_heads: int
    head_dim: int
    query_heads: int | None = None
    """None where it was not read; nothing that is held depends on it."""
    window: int | None = None

    def kv_bytes(self, tokens: int, dtype_bytes: int) -> int:
        """2 · KV heads · head dim numbers per token, in the window if there is one."""
        return kv_cache_bytes(1, self.kv_heads, self.head_dim, tokens, dtype_bytes, self.window)


@dataclass(frozen=True, kw_only=True)
class LatentAttention(Block):
    """Multi-head latent attention: one vector per token is held, from which all keys and values are computed."""

    mixers: ClassVar[tuple[str, ...]] = ("attention",)
    missing: str = "latent attention"
    latent: int
    positional: int
    """Width of the part of the key that carries positions; 0 for none."""

    def kv_bytes(self, tokens: int, dtype_bytes: int) -> int:
        """latent + positional numbers per token, for all heads together."""
        return (self.latent + self.positional) * tokens * dtype_bytes


@dataclass(frozen=True, kw_only=True)
class Recurrent(Block):
    """A fixed state; a subclass says how large."""

    mixers: ClassVar[tuple[str, ...]] = ("recurrent",)
    conv_width: int = 4

    def state_bytes(self, dtype_bytes: int) -> int:
        """channels · state entries of each."""
        channels, state, _ = self.memory()
        return recurrent_state_bytes(1, channels, state, dtype_bytes)

    def conv_bytes(self, dtype_bytes: int) -> int:
        """The last width − 1 inputs of the convolution."""
        return conv_window_bytes(1, self.memory()[2], self.conv_width, dtype_bytes)

    def memory(self) -> tuple[int, int, int]:
        """Channels, state entries per channel, channels of the convolution."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Mamba(Recurrent):
    """Mamba-1: `channels` = d_inner, each with `state` numbers."""

    channels: int
    state: int = 16

    def memory(self) -> tuple[int, int, int]:
        """The convolution runs over x alone."""
        return self.channels, self.state, self.channels


@dataclass(frozen=True, kw_only=True)
class Mamba2(Recurrent):
    """Mamba-2: `channels` = heads · head dim, each with `state` numbers; `groups` pairs of B and C."""

    channels: int
    state: int
    groups: int

    def memory(self) -> tuple[int, int, int]:
        """The convolution runs over x, B and C together."""
        return self.channels, self.state, self.channels + 2 * self.groups * self.state


@dataclass(frozen=True, kw_only=True)
class GatedDelta(Recurrent):
    """Gated DeltaNet: per value head a matrix of value dim by key dim."""

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int

    def memory(self) -> tuple[int, int, int]:
        """The convolution runs over queries, keys and values together."""
        values = self.value_heads * self.value_dim
        return values, self.key_dim, 2 * self.key_heads * self.key_dim + values


@dataclass(frozen=True, kw_only=True)
class KimiDelta(GatedDelta):
    """Kimi Delta Attention: the same memory, with a decay of its own for every key channel."""

    missing: str = "Kimi Delta Attention"


@dataclass(frozen=True, kw_only=True)
class RGLRU(Recurrent):
    """Griffin's recurrent block: one number per channel."""

    width: int

    def memory(self) -> tuple[int, int, int]:
        """The state is a vector."""
        return self.width, 1, self.width


@dataclass(frozen=True, kw_only=True)
class SharedHybrid(Block):
    """Zamba's hybrid layer: a call of the shared block of attention and MLP, whose output a Mamba layer hears.

    All calls use the same weights; each keeps a cache of its own.
    """

    mixers: ClassVar[tuple[str, ...]] = ("attention", "recurrent")
    attention: Attention
    recurrent: Recurrent
    adapter_rank: int | None = None
    """Rank of the term by which the MLP of one call differs from that of the next (Zamba2)."""

    def kv_bytes(self, tokens: int, dtype_bytes: int) -> int:
        """Those of this call."""
        return self.attention.kv_bytes(tokens, dtype_bytes)

    def state_bytes(self, dtype_bytes: int) -> int:
        """Those of the Mamba layer."""
        return self.recurrent.state_bytes(dtype_bytes)

    def conv_bytes(self, dtype_bytes: int) -> int:
        """Those of the Mamba layer."""
        return self.recurrent.conv_bytes(dtype_bytes)


@dataclass(frozen=True, kw_only=True)
class MLP(Block):
    """A feed-forward layer; `layer` says its kind."""


@dataclass(frozen=True, kw_only=True)
class MoE(Block):
    """Experts, of which each token meets a few. None for a number that no primary source read here states."""

    experts: int | None = None
    active: int | None = None
    shared: int = 0
    latent: bool = False
    """The routed experts work in a space narrower than the model (NVIDIA's LatentMoE)."""
