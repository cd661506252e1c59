"""Small models: a row of mixers, if need be as wide as brings them to a number of parameters."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ssm_kit.models import LanguageModel, ModelConfig

Mixer = Mapping[str, Any]
"""An entry of `ModelConfig.blocks`."""

EMBEDDING_SCALE = 10.0
"""Embeddings of standard deviation 0.02 · 10 = 0.2, about what a block adds to the stream. With embeddings of 1 recall
is learned later: of 4 pairs Mamba-2 with N = 16 then knew 27 %, with these 75 % (on the small task that
`experiments.recall_capacity` describes, after 1000 steps at 0.005; one seed)."""


def stack(mixers: Sequence[Mixer], *, vocab_size: int, d_model: int) -> ModelConfig:
    """The mixers one after the other."""
    blocks = {f"{place}": mixer for place, mixer in enumerate(mixers)}
    return ModelConfig(vocab_size, d_model, list(blocks), blocks, embedding_scale=EMBEDDING_SCALE)


def widened(mixers: Sequence[Mixer], *, vocab_size: int, parameters: int, step: int = 8) -> ModelConfig:
    """The mixers at the d_model, a multiple of `step` that they take, that brings the model closest to `parameters`.

    Raises ValueError if there is none up to 512.
    """
    found = []
    for d_model in range(step, 513, step):
        config = stack(mixers, vocab_size=vocab_size, d_model=d_model)
        try:
            found.append((abs(count(config) - parameters), d_model))
        except ValueError:  # a width that heads do not divide
            continue
    if not found:
        raise ValueError(f"mixers: expected some that take a multiple of {step} as d_model; got {list(mixers)}")
    return stack(mixers, vocab_size=vocab_size, d_model=min(found)[1])


def count(config: ModelConfig) -> int:
    """The number of parameters."""
    with torch.device("meta"):
        return sum(p.numel() for p in LanguageModel(config).parameters())
