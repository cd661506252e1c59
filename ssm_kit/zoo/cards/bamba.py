"""Bamba: Mamba-2 with three layers of attention in 32."""

from ssm_kit.zoo.blocks import MLP, Attention, Mamba2
from ssm_kit.zoo.card import Card, Claim

_BLOG = "github foundation-model-stack/bamba, release note"

BAMBA = Card(
    id="bamba-9b",
    name="Bamba 9B",
    organisation="IBM, Princeton, CMU and UIUC",
    published="2024",
    sources=(_BLOG, "github foundation-model-stack/fms-fsdp, mamba_9.8b"),
    parameters=9_000_000_000,
    context=4096,
    layers=32,
    blocks={
        "M": Mamba2(channels=128 * 64, state=128, groups=1),
        "*": Attention(kv_heads=8, head_dim=128, query_heads=32, layer={"rope": 10_000.0, "rotary_fraction": 0.5}),
        "-": MLP(layer={"kind": "swiglu"}),
    },
    layout="M-" * 9 + "*-" + "M-" * 8 + "*-" + "M-" * 8 + "*-" + "M-" * 4,
    model={"tied_head": False},
    claims=(
        Claim(
            "Up to twice the throughput of Llama 3.1 8B, and half its latency; five times are expected where memory is "
            "the bottleneck, and not yet reached.",
            "vLLM, 8k to 64k tokens, as batch and length grow",
            _BLOG,
        ),
    ),
)
