"""Models without attention: Mamba, Mamba-2, Falcon Mamba."""

from ssm_kit.zoo.blocks import Mamba, Mamba2
from ssm_kit.zoo.card import Card, Claim

MAMBA = Card(
    id="mamba-2.8b",
    name="Mamba 2.8B",
    organisation="Carnegie Mellon and Princeton (Gu, Dao)",
    published="2023-12-01",
    sources=("arXiv 2312.00752", "github state-spaces/mamba, README"),
    parameters=2_800_000_000,
    context=2048,
    layers=64,
    blocks={"M": Mamba(channels=5120)},
    layout="M" * 64,
    claims=(
        Claim(
            "Its scan is 20 to 40 times as fast as a standard scan in PyTorch, and faster than FlashAttention-2 beyond "
            "2K tokens.",
            "A100 80GB PCIe, batch 1, D = 1024, N = 16, bfloat16, 512 to 500K tokens",
            "arXiv 2312.00752, §4.5 and appendix D",
        ),
        Claim(
            "4 to 5 times the inference throughput of a Transformer of similar size.",
            "Mamba 1.4B, and an untrained 6.9B, against GPT-3 style Transformers of 1.3B and 6.7B in transformers; "
            "prompt 2048, 128 generated, batch 1 to 128",
            "arXiv 2312.00752, §4.5",
        ),
    ),
    notes=("Context: the length it was trained at.",),
)

MAMBA2 = Card(
    id="mamba2-2.7b",
    name="Mamba-2 2.7B",
    organisation="Princeton and Carnegie Mellon (Dao, Gu)",
    published="2024-05-31",
    sources=("arXiv 2405.21060", "github state-spaces/mamba, README and mamba2.py"),
    parameters=2_700_000_000,
    context=2048,
    layers=64,
    blocks={"M": Mamba2(channels=5120, state=128, groups=1)},
    layout="M" * 64,
    claims=(
        Claim(
            "SSD is 2 to 8 times as fast as Mamba's scan, and faster than FlashAttention-2 from 2K tokens on; a whole "
            "model is not as efficient to train as a Transformer at short lengths such as 2K.",
            "N = 64, A100 80GB PCIe",
            "arXiv 2405.21060, §9.3 and figure 10",
        ),
    ),
    notes=(
        "Context: the length it was trained at.",
        "State, head dim and groups are the defaults of mamba2.py; the checkpoint's config names the layer only.",
        "A sibling, mamba2attn-2.7b, has attention at layers 9, 18, 27, 36, 45 and 56.",
    ),
)

FALCON_MAMBA = Card(
    id="falcon-mamba-7b",
    name="Falcon Mamba 7B",
    organisation="TII",
    published="2024-10-07",
    sources=("arXiv 2410.05355", "config.json of the instruct and pre-decay checkpoints"),
    parameters=7_000_000_000,
    layers=64,
    blocks={"M": Mamba(channels=8192, layer={"bcdt_norm": "weightless"})},
    layout="M" * 64,
    model={"tied_head": False},
    claims=(
        Claim(
            "Significantly faster at inference than Transformers, and needs substantially less memory for generating "
            "long sequences.",
            "no number in the abstract",
            "arXiv 2410.05355, abstract",
        ),
    ),
)
