"""What all translations share: renamed weights, and settings that must be as expected."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

Weights = dict[str, Tensor]


def rename(weights: Mapping[str, Tensor], *rules: tuple[str, str]) -> Weights:
    """The weights with every rule, (regular expression, replacement), applied to every name in order.

    Several names may become one if their tensors are equal: shared weights. Else ValueError is raised.
    """
    renamed: Weights = {}
    for theirs, tensor in weights.items():
        name = theirs
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        if not torch.equal(renamed.setdefault(name, tensor), tensor):
            raise ValueError(f"weights must be shared where they are one here, {name}; got another {theirs}")
    return renamed


def two_blocks_per_layer(weights: Mapping[str, Tensor], first: Mapping[str, str], second: Mapping[str, str]) -> Weights:
    """Layer i, of a mixer and an MLP, becomes block 2i and block 2i + 1.

    Args:
        weights: with names layers.i.part.rest; other names stay.
        first, second: the parts of the two blocks, theirs -> ours.

    Raises:
        ValueError: a part that is in neither.
    """
    blocks = {part: (0, ours) for part, ours in first.items()} | {part: (1, ours) for part, ours in second.items()}
    split = {}
    for name, tensor in weights.items():
        if match := re.fullmatch(r"layers\.(\d+)\.(\w+)\.(.+)", name):
            layer, part, rest = match.groups()
            if part not in blocks:
                raise ValueError(f"weights must have parts {', '.join(blocks)} in their layers; got {name}")
            block, ours = blocks[part]
            name = f"layers.{2 * int(layer) + block}.{ours}.{rest}"
        split[name] = tensor
    return split


def without_tied_head(weights: Weights, tied: bool) -> Weights:
    """The weights without the head's, if the head is tied: it has none of its own here."""
    return {name: tensor for name, tensor in weights.items() if not (tied and name == "lm_head.weight")}


def require(config: Mapping[str, Any], **expected: Any) -> None:
    """Raise ValueError unless every setting, where the config has it, is the one that the layers here implement."""
    for name, value in expected.items():
        if config.get(name, value) != value:
            raise ValueError(f"config.{name} must be {value!r}; got {config[name]!r}")
