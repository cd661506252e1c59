"""A model as data: what every block is, and how blocks are joined."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class ModelConfig:
    """Everything that defines a language model but its weights.

    A model is a row of residual blocks, x ← x + layer(norm(x)), one operation each: a mixer, an MLP or a mixture of
    experts. A Transformer layer is two blocks. `pattern` spells the row and `blocks` says what each of its kinds is:

        ModelConfig(vocab_size=256, d_model=64, pattern="M-M-*-", blocks={
            "M": "Mamba2",                                # a layer of ssm_kit.layers with its defaults
            "*": {"layer": "Attention", "num_heads": 4},  # or with arguments of its constructor (all but d_model)
            "-": {"layer": "MLP", "d_ff": 128},
        })

    An entry may ask for an attention that all blocks of its kind share, as Zamba has it before some of its mixers:
    {"layer": "Mamba", "shared": {"num_heads": 4, "d_ff": 128}}, with arguments of `SharedAttention`.

    `pattern` may also be a sequence of longer names. Pattern and blocks are normalised: a tuple of names, and a
    dictionary of dictionaries.

    Raises ValueError naming the field, what was expected and what came.
    """

    vocab_size: int
    d_model: int
    pattern: str | Sequence[str]
    blocks: Mapping[str, Any]

    norm_eps: float = 1e-5
    zero_centered_norm: bool = False
    """The norms before blocks and head store their weight as its difference from 1 (Gemma, Qwen3-Next)."""
    embedding_scale: float = 1.0
    """The embeddings are multiplied by this (Gemma: √d_model)."""
    tied_head: bool = True
    """The head is the transpose of the embeddings and has no weights of its own."""
    logit_softcap: float | None = None
    """Logits are bent to cap · tanh(logits / cap) (Gemma)."""
    residual_in_fp32: bool = True
    """The residual stream stays in float32 when weights are in half precision (Mamba)."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "d_model"):
            _require(_is_whole(getattr(self, name)), name, "a whole number >= 1", getattr(self, name))
        for name in ("norm_eps", "embedding_scale"):
            _require(_is_positive(getattr(self, name)), name, "a number > 0", getattr(self, name))
        cap = self.logit_softcap
        _require(cap is None or _is_positive(cap), "logit_softcap", "None or a number > 0", cap)
        for name in ("zero_centered_norm", "tied_head", "residual_in_fp32"):
            _require(isinstance(getattr(self, name), bool), name, "True or False", getattr(self, name))
        object.__setattr__(self, "blocks", {kind: _block(kind, block) for kind, block in self.blocks.items()})
        object.__setattr__(self, "pattern", tuple(self.pattern))
        _require(len(self.pattern) > 0, "pattern", "at least one block", self.pattern)
        unknown = [kind for kind in self.pattern if kind not in self.blocks]
        _require(not unknown, "pattern", f"made of the kinds in blocks, {list(self.blocks)}", unknown)

    def to_dict(self) -> dict[str, Any]:
        """The config as plain data for JSON; `from_dict` reads it back."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        spelled = "".join(self.pattern)
        plain["pattern"] = spelled if tuple(spelled) == self.pattern else list(self.pattern)
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "ModelConfig":
        """The config that `to_dict` wrote. Raises ValueError for a field that is missing or that no config has."""
        required = {"vocab_size", "d_model", "pattern", "blocks"}
        known = {field.name for field in fields(cls)}
        _require(required <= plain.keys(), "config", f"complete: {sorted(required)}", sorted(plain))
        _require(plain.keys() <= known, "config", f"made of {sorted(known)}", sorted(plain.keys() - known))
        return cls(**plain)


def _block(kind: str, block: str | Mapping[str, Any]) -> dict[str, Any]:
    """{"layer": name, **arguments} from a layer's bare name or such a mapping."""
    plain = {"layer": block} if isinstance(block, str) else {name: _plain(value) for name, value in block.items()}
    named = isinstance(plain.get("layer"), str)
    _require(named, f"blocks[{kind!r}]", 'a layer\'s name or {"layer": name, **arguments}', block)
    return plain


def _plain(value: Any) -> Any:
    """A pair is a list, as JSON would have it."""
    return list(value) if isinstance(value, tuple) else value


def _require(holds: bool, name: str, expected: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{name} must be {expected}; got {value!r}")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
