"""Six language models of one size that differ in what mixes their tokens; the rest, and the parameters, are equal."""

import functools
from dataclasses import dataclass
from typing import Any

from ssm_kit.models import LanguageModel, ModelConfig, schedule

MIXERS = ("attention", "sliding window", "Mamba", "Mamba-2", "Gated DeltaNet", "hybrid")
ROPE = 10000.0


@dataclass(frozen=True)
class Size:
    """How large the models are.

    Every layer is a mixer and a SwiGLU MLP. What a mixer has more or less in parameters than attention, its MLP has
    less or more.
    """

    d_model: int
    layers: int
    head_dim: int
    """Of attention, and Mamba-2's P."""
    d_state: int
    """Mamba-2's N, and the width of Gated DeltaNet's keys and values: their states are equally large. Mamba's is 16."""
    window: int
    """Tokens that the sliding window sees."""
    d_ff: int
    """Width of the MLP beside attention."""


def blocks(mixer: str, size: Size) -> dict[str, Any]:
    """The mixer "M", and the hybrid's attention "*", as `ModelConfig.blocks` has them.

    Raises ValueError for an unknown mixer.
    """
    d, state = size.d_model, size.d_state
    attention = {"layer": "Attention", "num_heads": d // size.head_dim}
    mamba2 = {"layer": "Mamba2", "d_state": state, "headdim": size.head_dim}
    heads = {"num_k_heads": d // state, "num_v_heads": 2 * d // state, "head_k_dim": state, "head_v_dim": state}
    known: dict[str, dict[str, Any]] = {
        "attention": {"M": attention | {"rope": ROPE}},
        "sliding window": {"M": attention | {"rope": ROPE, "window": size.window}},
        "Mamba": {"M": {"layer": "Mamba"}},
        "Mamba-2": {"M": mamba2},
        "Gated DeltaNet": {"M": {"layer": "GatedDeltaNet", **heads}},
        "hybrid": {"M": mamba2, "*": attention},  # without positions, as Jamba's and Nemotron-H's
    }
    if mixer not in known:
        raise ValueError(f"mixer: expected one of {', '.join(known)}; got {mixer!r}")
    return known[mixer]


@functools.cache
def config(mixer: str, size: Size) -> ModelConfig:
    """A byte model of the size; the hybrid has one layer of attention. Raises ValueError for an unknown mixer."""
    wanted = parameters(_config("attention", size, size.d_ff))
    # The count is linear in the width of the MLPs, and multiples of 8 suit matrix units.
    none, some = (parameters(_config(mixer, size, d_ff)) for d_ff in (8, 16))
    return _config(mixer, size, 8 * max(1, 1 + round((wanted - none) / (some - none))))


def parameters(model: ModelConfig) -> int:
    """The number of parameters."""
    return sum(parameter.numel() for parameter in LanguageModel(model).parameters())


def _config(mixer: str, size: Size, d_ff: int) -> ModelConfig:
    kinds = blocks(mixer, size)
    row = schedule(size.layers, 1 / size.layers if "*" in kinds else 0)
    pattern = "".join(letter + "-" for letter in row)
    return ModelConfig(256, size.d_model, pattern, {**kinds, "-": {"layer": "MLP", "d_ff": d_ff}})
