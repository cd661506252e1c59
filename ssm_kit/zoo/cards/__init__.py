"""The cards, a file per family."""

from ssm_kit.zoo.card import Card
from ssm_kit.zoo.cards import (
    bamba,
    granite,
    jamba,
    kimi_delta,
    mamba,
    nemotron,
    olmo_hybrid,
    qwen,
    recurrentgemma,
    transformers,
    zamba,
)

_FAMILIES = (
    mamba,
    jamba,
    zamba,
    recurrentgemma,
    nemotron,
    bamba,
    granite,
    qwen,
    olmo_hybrid,
    kimi_delta,
    transformers,
)

CARDS: dict[str, Card] = {
    card.id: card for family in _FAMILIES for card in vars(family).values() if isinstance(card, Card)
}
"""All cards by id, family by family."""
