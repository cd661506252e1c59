"""Zamba: Mamba layers, some of which first hear one attention block whose weights they share."""

from ssm_kit.zoo.blocks import Attention, Mamba, Mamba2, SharedHybrid
from ssm_kit.zoo.card import Card, Claim

_MAMBA = Mamba(channels=7424, layer={"num_heads": 2})
_MAMBA2_3B = Mamba2(channels=5120, state=64, groups=1)
_MAMBA2_7B = Mamba2(channels=7168, state=64, groups=2)
_HYBRID_3B = SharedHybrid(
    attention=Attention(kv_heads=32, head_dim=160, query_heads=32), recurrent=_MAMBA2_3B, adapter_rank=128
)
_HYBRID_7B = SharedHybrid(
    attention=Attention(kv_heads=32, head_dim=224, query_heads=32, layer={"rope": 10_000.0}),
    recurrent=_MAMBA2_7B,
    adapter_rank=128,
)
_TURNS = "Two shared blocks, Z and Y, take turns; a low-rank term in their MLP is of each call's own."

ZAMBA = Card(
    id="zamba-7b",
    name="Zamba-7B",
    organisation="Zyphra",
    published="2024-05-26",
    sources=("arXiv 2405.16712", "transformers 5.23, ZambaConfig and modeling_zamba.py"),
    parameters=7_000_000_000,
    context=4096,
    layers=76,
    blocks={
        "M": _MAMBA,
        "Z": SharedHybrid(attention=Attention(kv_heads=16, head_dim=464, query_heads=16), recurrent=_MAMBA),
    },
    layout="MMZMMMMZ" + "MMMMMZ" * 11 + "MM",
    model={"residual_in_fp32": False},
    claims=(
        Claim(
            "Significantly faster at inference than comparable Transformers, and needs substantially less memory for "
            "generating long sequences.",
            "no number in the abstract",
            "arXiv 2405.16712, abstract",
        ),
    ),
    notes=("Shared weights do not share a cache: each of the 13 calls keeps keys and values of its own.",),
)

ZAMBA2_3B = Card(
    id="zamba2-2.7b",
    name="Zamba2-2.7B",
    organisation="Zyphra",
    published="2024-11",
    sources=("arXiv 2411.15242", "github Zyphra/Zamba2, config.json", "transformers 5.23, Zamba2Config"),
    parameters=2_700_000_000,
    context=4096,
    layers=54,
    blocks={"M": _MAMBA2_3B, "Z": _HYBRID_3B, "Y": _HYBRID_3B},
    layout="M" + "MMMMMZMMMMMY" * 3 + "MMMMMZ" + "MMMMY" + "MMMZ" + "MM",
    model={"residual_in_fp32": False},
    notes=(_TURNS,),
)

ZAMBA2_7B = Card(
    id="zamba2-7b",
    name="Zamba2-7B",
    organisation="Zyphra",
    published="2024-11",
    sources=("arXiv 2411.15242", "config.json of Zyphra/Zamba2-7B"),
    parameters=7_400_000_000,
    context=4096,
    layers=81,
    blocks={"M": _MAMBA2_7B, "Z": _HYBRID_7B, "Y": _HYBRID_7B},
    layout="MMMMMMZMMMMY" + "MMMMMZMMMMMY" * 5 + "MMMMMZ" + "MMM",
    model={"residual_in_fp32": False},
    notes=(_TURNS, "Sizes as in two agreeing copies of the checkpoint's config."),
)
