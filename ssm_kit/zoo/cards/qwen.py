"""Qwen's hybrids: Gated DeltaNet with gated attention in every fourth layer, the last one included."""

from ssm_kit.zoo.blocks import MLP, Attention, GatedDelta, MoE
from ssm_kit.zoo.card import Card, Claim

_GATED = {"rope": 10_000.0, "rotary_fraction": 0.25, "qk_norm": True, "output_gate": True}
_EXPERTS = {"kind": "swiglu", "normalize": True, "shared_gate": True}
_MODEL = {"norm_eps": 1e-6, "zero_centered_norm": True, "tied_head": False, "residual_in_fp32": False}
_DELTA = GatedDelta(key_heads=16, value_heads=32, key_dim=128, value_dim=128)

QWEN3_NEXT = Card(
    id="qwen3-next-80b-a3b",
    name="Qwen3-Next 80B-A3B",
    organisation="Alibaba Qwen",
    published="2025-09",
    sources=(
        "Hugging Face, documentation of Qwen3-Next",
        "transformers 5.23, Qwen3NextConfig and modeling_qwen3_next.py",
    ),
    parameters=80_000_000_000,
    active_parameters=3_000_000_000,
    layers=48,
    blocks={
        "G": _DELTA,
        "*": Attention(kv_heads=2, head_dim=256, query_heads=16, layer=_GATED),
        "E": MoE(experts=512, active=10, shared=1, layer=_EXPERTS),
    },
    layout="GEGEGE*E" * 12,
    model=_MODEL,
    claims=(
        Claim(
            "More than ten times the inference throughput of Qwen3-32B.",
            "contexts longer than 32K; hardware not stated; the other model is dense, so most of it is due to experts",
            "Hugging Face, documentation of Qwen3-Next",
        ),
    ),
)

QWEN3_5_35B = Card(
    id="qwen3.5-35b-a3b",
    name="Qwen3.5 35B-A3B",
    organisation="Alibaba Qwen",
    published=None,
    sources=("transformers 5.23, Qwen3_5MoeTextConfig, named after this checkpoint",),
    parameters=35_000_000_000,
    active_parameters=3_000_000_000,
    layers=40,
    blocks={
        "G": _DELTA,
        "*": Attention(kv_heads=2, head_dim=256, query_heads=16, layer=_GATED),
        "E": MoE(experts=256, active=8, shared=1, layer=_EXPERTS),
    },
    layout="GEGEGE*E" * 10,
    model=_MODEL,
)

QWEN3_6_27B = Card(
    id="qwen3.6-27b",
    name="Qwen3.6 27B",
    organisation="Alibaba Qwen",
    published=None,
    sources=("Hugging Face Qwen/Qwen3.6-27B, card",),
    parameters=27_000_000_000,
    layers=64,
    blocks={
        "G": GatedDelta(key_heads=16, value_heads=48, key_dim=128, value_dim=128),
        "*": Attention(kv_heads=4, head_dim=256, layer=_GATED),
        "-": MLP(layer={"kind": "swiglu"}),
    },
    layout="G-G-G-*-" * 16,
    model=_MODEL,
)
