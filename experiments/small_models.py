"""Small models: a row of mixers, if need be with an MLP at its end that fills up to a number of parameters."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ssm_kit.models import LanguageModel, ModelConfig

Mixer = Mapping[str, Any]
"""An entry of `ModelConfig.blocks`."""

EMBEDDING_SCALE = 50.0
"""Embeddings of standard deviation 0.02 · 50 = 1 enter the stream as large as what the blocks add to it."""


def stack(mixers: Sequence[Mixer], *, vocab_size: int, d_model: int) -> ModelConfig:
    """The mixers one after the other."""
    blocks = {f"{place}": mixer for place, mixer in enumerate(mixers)}
    return ModelConfig(vocab_size, d_model, list(blocks), blocks, embedding_scale=EMBEDDING_SCALE)


def filled(mixers: Sequence[Mixer], *, vocab_size: int, d_model: int, parameters: int) -> ModelConfig:
    """The mixers, then a SwiGLU MLP as wide as brings the model closest to `parameters`.

    The MLP makes models of different mixers equally large. It stands where no mixer reads it, so that it takes no part
    in how they pass things on to each other. Raises ValueError if the mixers alone have more parameters.
    """

    def config(d_ff: int) -> ModelConfig:
        mlp = {"layer": "MLP", "d_ff": d_ff}
        return stack([*mixers, mlp], vocab_size=vocab_size, d_model=d_model)

    least = count(config(1))
    d_ff = 1 + round((parameters - least) / (3 * d_model))  # a channel inside has three weights for each one outside
    if d_ff < 1:
        raise ValueError(f"parameters: expected at least {least}, for {list(mixers)} alone; got {parameters}")
    return config(d_ff)


def count(config: ModelConfig) -> int:
    """The number of parameters."""
    with torch.device("meta"):
        return sum(p.numel() for p in LanguageModel(config).parameters())
