"""One model of the zoo: who made it, what its blocks are, what that costs, and what its makers claim."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ssm_kit.zoo.blocks import Block, MoE

if TYPE_CHECKING:  # only tiny() needs torch
    from ssm_kit.models import ModelConfig


@dataclass(frozen=True)
class Claim:
    """What makers say of their own model, in what setting, and where."""

    text: str
    setting: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Card:
    """A published model as data. What follows from its blocks is computed from them, never stored.

    Bytes are per sequence; weights are not counted. A state is often kept in float32 (dtype_bytes=4) beside keys and
    values in bfloat16 (2).
    """

    id: str
    name: str
    organisation: str
    published: str | None
    """Year, month or day of the first publication, as far as a primary source dates it; None if none does."""
    sources: tuple[str, ...]
    parameters: int | None
    """As the makers round it; None where no primary source read here says."""
    active_parameters: int | None = None
    """Those that one token meets, in a mixture of experts; None for all."""
    context: int | None = None
    """Tokens, the longest that the makers name for this checkpoint; None where no primary source read here says."""
    layers: int
    """As the makers count: in some families a layer is a mixer with its MLP, in others one operation."""
    blocks: Mapping[str, Block]
    """Every kind of block, by the letter that stands for it."""
    layout: str | Mapping[str, int]
    """The pattern; or how often each kind occurs, where the order is not known."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """Settings of `ssm_kit.models.ModelConfig` that belong to the architecture."""
    scaled_embeddings: bool = False
    """The embeddings are multiplied by √d_model."""
    claims: tuple[Claim, ...] = ()
    notes: tuple[str, ...] = ()

    def pattern(self) -> str | None:
        """The blocks in order, a letter each; None where no primary source read here says the order.

        M Mamba or Mamba-2, G Gated DeltaNet, K Kimi Delta Attention, R RG-LRU, * attention, L attention to a window,
        Z and Y Mamba layers that hear one shared attention or another, - MLP, E experts.
        """
        return self.layout if isinstance(self.layout, str) else None

    def count(self, mixer: str) -> int:
        """How many times a sequence passes through a mixer, "attention" or "recurrent"."""
        return self._sum(lambda block: block.mixers.count(mixer))

    def attention_fraction(self, of: str = "mixers") -> float:
        """The share of attention. Compare models on one base only: they differ by a factor of two.

        Args:
            of: "mixers", attention and recurrent mixers alone; "blocks", all letters of the pattern, MLPs and experts
                among them; "layers", as the makers count.

        Raises:
            ValueError: another base.
        """
        attention = self.count("attention")
        bases = {
            "mixers": attention + self.count("recurrent"),
            "blocks": self._sum(lambda block: 1),
            "layers": self.layers,
        }
        if of not in bases:
            raise ValueError(f"of must be one of {', '.join(bases)}; got {of!r}")
        return attention / bases[of]

    def kv_bytes_per_token(self, dtype_bytes: int = 2) -> int:
        """Bytes of keys and values that one more token adds, until windows are full."""
        return self.cache_bytes(1, dtype_bytes)

    def cache_bytes(self, tokens: int, dtype_bytes: int = 2) -> int:
        """Bytes of keys and values after so many tokens."""
        return self._sum(lambda block: block.kv_bytes(tokens, dtype_bytes))

    def state_bytes(self, dtype_bytes: int = 2) -> int:
        """Bytes of recurrent state, the same at every length; `conv_bytes` come on top."""
        return self._sum(lambda block: block.state_bytes(dtype_bytes))

    def conv_bytes(self, dtype_bytes: int = 2) -> int:
        """Bytes of the last inputs that short convolutions keep."""
        return self._sum(lambda block: block.conv_bytes(dtype_bytes))

    @property
    def experts(self) -> MoE | None:
        """Its mixture of experts, if it has one."""
        return next((block for block in self.blocks.values() if isinstance(block, MoE)), None)

    def tiny(self) -> "ModelConfig":
        """A small model of the same architecture: `ssm_kit.zoo.tiny.tiny`."""
        from ssm_kit.zoo.tiny import tiny

        return tiny(self)

    def _sum(self, number: Callable[[Block], int]) -> int:
        return sum(times * number(self.blocks[kind]) for kind, times in Counter(self.layout).items())
