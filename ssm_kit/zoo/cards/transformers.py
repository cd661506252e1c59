"""Transformers to compare with: attention in every layer."""

from ssm_kit.zoo.blocks import MLP, Attention, MoE
from ssm_kit.zoo.card import Card

_ROTARY = {"rope": 10_000.0}
_SWIGLU = {"kind": "swiglu"}
_MODEL = {"tied_head": False, "residual_in_fp32": False}

LLAMA_2_7B = Card(
    id="llama-2-7b",
    name="Llama 2 7B",
    organisation="Meta",
    published="2023-07",
    sources=("arXiv 2307.09288",),
    parameters=7_000_000_000,
    context=4096,
    layers=32,
    blocks={"*": Attention(kv_heads=32, head_dim=128, query_heads=32, layer=_ROTARY), "-": MLP(layer=_SWIGLU)},
    layout="*-" * 32,
    model=_MODEL,
)

MIXTRAL = Card(
    id="mixtral-8x7b",
    name="Mixtral 8x7B",
    organisation="Mistral AI",
    published="2024-01",
    sources=("arXiv 2401.04088, table 1",),
    parameters=47_000_000_000,
    active_parameters=13_000_000_000,
    context=32_768,
    layers=32,
    blocks={
        "*": Attention(kv_heads=8, head_dim=128, query_heads=32, layer=_ROTARY),
        "E": MoE(experts=8, active=2, layer=_SWIGLU | {"normalize": True}),
    },
    layout="*E" * 32,
    model=_MODEL,
)

LLAMA_3_8B = Card(
    id="llama-3-8b",
    name="Llama 3 8B",
    organisation="Meta",
    published="2024-07",
    sources=("arXiv 2407.21783, table 3",),
    parameters=8_000_000_000,
    layers=32,
    blocks={"*": Attention(kv_heads=8, head_dim=128, query_heads=32, layer=_ROTARY), "-": MLP(layer=_SWIGLU)},
    layout="*-" * 32,
    model=_MODEL,
)

LLAMA_3_70B = Card(
    id="llama-3-70b",
    name="Llama 3 70B",
    organisation="Meta",
    published="2024-07",
    sources=("arXiv 2407.21783, table 3",),
    parameters=70_000_000_000,
    layers=80,
    blocks={"*": Attention(kv_heads=8, head_dim=128, query_heads=64, layer=_ROTARY), "-": MLP(layer=_SWIGLU)},
    layout="*-" * 80,
    model=_MODEL,
)
