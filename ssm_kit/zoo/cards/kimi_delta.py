"""Hybrids of Kimi Delta Attention and latent attention without positions of its own."""

from ssm_kit.zoo.blocks import MLP, KimiDelta, LatentAttention, MoE
from ssm_kit.zoo.card import Card, Claim

_DELTA_32 = KimiDelta(key_heads=32, value_heads=32, key_dim=128, value_dim=128)
_MLP = MLP(layer={"kind": "swiglu"})

KIMI_LINEAR = Card(
    id="kimi-linear-48b-a3b",
    name="Kimi Linear 48B-A3B",
    organisation="Moonshot AI",
    published="2025-10",
    sources=("arXiv 2510.26692", "config.json of moonshotai/Kimi-Linear-48B-A3B"),
    parameters=48_000_000_000,
    active_parameters=3_000_000_000,
    context=1_048_576,
    layers=27,
    blocks={
        "K": _DELTA_32,
        "*": LatentAttention(latent=512, positional=64),
        "-": _MLP,
        "E": MoE(experts=256, active=8, shared=1),
    },
    layout="K-KEKE*E" + "KEKEKE*E" * 5 + "KEKE*E",
    claims=(
        Claim(
            "Decoding up to 6 times as fast as full latent attention: 1.84 ms against 11.48 ms per token.",
            "1M tokens of context, with larger batches made possible by the smaller cache",
            "arXiv 2510.26692, abstract and figure 1b",
        ),
        Claim(
            "Prefill 2.3 times as fast at 512K tokens and 2.9 times at 1M.",
            "batch 1, against full latent attention",
            "arXiv 2510.26692, figure 7a",
        ),
    ),
    notes=(
        "Positions as in three agreeing copies of the checkpoint's config; the class in transformers ends otherwise.",
    ),
)

LING_3_FLASH = Card(
    id="ling-3.0-flash",
    name="Ling 3.0 Flash",
    organisation="inclusionAI",
    published=None,
    sources=("transformers 5.23, BailingHybridConfig, named after this checkpoint",),
    parameters=None,
    layers=42,
    blocks={
        "K": _DELTA_32,
        "*": LatentAttention(latent=512, positional=64),
        "-": _MLP,
        "E": MoE(experts=512, active=8, shared=1),
    },
    layout="K-K-KEKEKE*E" + "KEKEKEKEKE*E" * 6,
)

GLM_5_3_FLASH = Card(
    id="glm-5.3-flash",
    name="GLM-5.3-Flash",
    organisation="Z.ai",
    published=None,
    sources=("transformers 5.23, Glm5NextTextConfig, named after this checkpoint",),
    parameters=None,
    layers=45,
    blocks={
        "K": KimiDelta(key_heads=64, value_heads=64, key_dim=128, value_dim=128),
        "*": LatentAttention(latent=512, positional=0),
        "-": _MLP,
        "E": MoE(experts=288, active=8, shared=1),
    },
    layout="K-K-K-*E" + "KEKEKE*E" * 10 + "KE",
    notes=("Attention is sparse: an indexer picks the tokens, and keeps keys of its own that are not counted here.",),
)
