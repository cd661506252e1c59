"""Granite 4.0: Mamba-2 with a tenth of attention, experts in every layer."""

from ssm_kit.zoo.blocks import Attention, Mamba2, MoE
from ssm_kit.zoo.card import Card

_UNORDERED = ("No primary source read here says at which layers attention sits.",)

GRANITE_SMALL = Card(
    id="granite-4.0-h-small",
    name="Granite 4.0 H Small",
    organisation="IBM",
    published="2025-10",
    sources=("Hugging Face ibm-granite/granite-4.0-h-small, card",),
    parameters=32_000_000_000,
    active_parameters=9_000_000_000,
    layers=40,
    blocks={
        "M": Mamba2(channels=128 * 64, state=128, groups=1),
        "*": Attention(kv_heads=8, head_dim=128),
        "E": MoE(),
    },
    layout={"M": 36, "*": 4, "E": 40},
    notes=_UNORDERED,
)

GRANITE_TINY = Card(
    id="granite-4.0-h-tiny",
    name="Granite 4.0 H Tiny",
    organisation="IBM",
    published="2025-10",
    sources=("Hugging Face ibm-granite/granite-4.0-h-tiny, card",),
    parameters=7_000_000_000,
    active_parameters=1_000_000_000,
    layers=40,
    blocks={
        "M": Mamba2(channels=48 * 64, state=128, groups=1),
        "*": Attention(kv_heads=4, head_dim=128),
        "E": MoE(),
    },
    layout={"M": 36, "*": 4, "E": 40},
    notes=_UNORDERED,
)
