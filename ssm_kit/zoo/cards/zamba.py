"""Zamba: Mamba layers, some of which first hear one attention block whose weights they share."""

from ssm_kit.zoo.blocks import Attention, Mamba, Mamba2, SharedHybrid
from ssm_kit.zoo.card import Card, Claim

_MAMBA = Mamba(channels=7424, layer={"num_heads": 2})
_MAMBA2 = Mamba2(channels=5120, state=64, groups=1)
_HYBRID2 = SharedHybrid(
    attention=Attention(kv_heads=32, head_dim=160, query_heads=32), recurrent=_MAMBA2, adapter_rank=128
)

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

ZAMBA2 = Card(
    id="zamba2-2.7b",
    name="Zamba2-2.7B",
    organisation="Zyphra",
    published="2024-11",
    sources=("arXiv 2411.15242", "transformers 5.23, Zamba2Config", "config.json of Zyphra/Zamba2-2.7B"),
    parameters=2_700_000_000,
    context=4096,
    layers=54,
    blocks={"M": _MAMBA2, "Z": _HYBRID2, "Y": _HYBRID2},
    layout="M" + "MMMMMZMMMMMY" * 3 + "MMMMMZ" + "MMMMY" + "MMMZ" + "MM",
    model={"residual_in_fp32": False},
    notes=("Two shared blocks, Z and Y, take turns; a low-rank term in their MLP is of each call's own.",),
)
