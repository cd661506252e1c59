"""OLMo Hybrid: Gated DeltaNet whose memory may flip signs, full multi-head attention in every fourth layer."""

from ssm_kit.zoo.blocks import MLP, Attention, GatedDelta
from ssm_kit.zoo.card import Card

OLMO_HYBRID = Card(
    id="olmo-hybrid-7b",
    name="OLMo Hybrid 7B",
    organisation="AI2",
    published="2026-03",
    sources=("transformers 5.23, OlmoHybridConfig, named after this checkpoint",),
    parameters=7_000_000_000,
    layers=32,
    blocks={
        "G": GatedDelta(
            key_heads=30, value_heads=30, key_dim=96, value_dim=192, missing="Gated DeltaNet with β up to 2"
        ),
        "*": Attention(kv_heads=30, head_dim=128, query_heads=30),
        "-": MLP(layer={"kind": "swiglu"}),
    },
    layout="G-G-G-*-" * 8,
)
