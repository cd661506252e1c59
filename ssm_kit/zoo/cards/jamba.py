"""Jamba: one attention layer in eight, experts in every second layer."""

from ssm_kit.zoo.blocks import MLP, Attention, Mamba, MoE
from ssm_kit.zoo.card import Card, Claim

JAMBA = Card(
    id="jamba-v0.1",
    name="Jamba v0.1",
    organisation="AI21 Labs",
    published="2024-03-28",
    sources=("arXiv 2403.19887", "Hugging Face ai21labs/Jamba-v0.1, card", "transformers 5.23, JambaConfig"),
    parameters=52_000_000_000,
    active_parameters=12_000_000_000,
    context=262_144,
    layers=32,
    blocks={
        "M": Mamba(channels=8192, layer={"bcdt_norm": "learned"}),
        "*": Attention(kv_heads=8, head_dim=128, query_heads=32),  # no positional encoding
        "-": MLP(layer={"kind": "swiglu"}),
        "E": MoE(experts=16, active=2, layer={"kind": "swiglu"}),
    },
    layout="M-MEM-ME*-MEM-ME" * 4,
    model={"norm_eps": 1e-6, "tied_head": False, "residual_in_fp32": False},
    claims=(
        Claim(
            "Three times the throughput of Mixtral 8x7B on long contexts.",
            "not in the announcement; a vendor's own comparison",
            "AI21's announcement on Hugging Face",
        ),
        Claim(
            "A context of up to 140K tokens fits on one GPU of 80 GB.",
            "not stated",
            "Hugging Face ai21labs/Jamba-v0.1, card",
        ),
    ),
)
