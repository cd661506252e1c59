"""NVIDIA's hybrids of Mamba-2: one operation per layer, attention without positions and with few key heads."""

from ssm_kit.zoo.blocks import MLP, Attention, Mamba2, MoE
from ssm_kit.zoo.card import Card, Claim

_BRIDGE = "github NVIDIA-NeMo/Megatron-Bridge, Nemotron-H providers"
_MLP = MLP(layer={"kind": "relu2"})
_ATTENTION = Attention(kv_heads=8, head_dim=128)
_FEW_HEADS = Attention(kv_heads=2, head_dim=128)
# Nemotron-H holds every step size above 0.001.
_DT_LIMIT = {"dt_limit": (0.001, float("inf"))}
_MODEL = {"tied_head": False, "residual_in_fp32": False}
_ROUTER = {"kind": "relu2", "score": "sigmoid", "normalize": True}

MAMBA2_HYBRID = Card(
    id="mamba2-hybrid-8b",
    name="Mamba-2-Hybrid 8B",
    organisation="NVIDIA",
    published="2024-06-12",
    sources=(
        "arXiv 2406.07887",
        "github NVIDIA/Megatron-LM, examples/mamba",
        "Hugging Face nvidia/mamba2-hybrid-8b-3t",
    ),
    parameters=8_000_000_000,
    context=131_072,
    layers=56,
    blocks={"M": Mamba2(channels=8192, state=128, groups=8), "*": _ATTENTION, "-": _MLP},
    layout="M-M-M--M-M*-M-M-M-M--M*-M-M-M-M-M*--M-M-M-M-M*-M--M-M-M-",
    model=_MODEL,
    claims=(
        Claim(
            "Predicted to be up to 8 times as fast as the Transformer when generating tokens at inference time.",
            "a prediction; no setting in the abstract",
            "arXiv 2406.07887, abstract",
        ),
    ),
    notes=(
        "The paper's sweep asked for 8 % attention; the model that was built has 4 of 56 blocks.",
        "Trained at 4K; variants for 16K, 32K and 128K.",
        "State and groups are Megatron-LM's defaults, which its script for this model leaves as they are.",
        "The tiny model takes the squared ReLU of the successors; the script does not name the activation.",
    ),
)

NEMOTRON_H_8B = Card(
    id="nemotron-h-8b",
    name="Nemotron-H 8B Base",
    organisation="NVIDIA",
    published="2025-04-04",
    sources=("arXiv 2504.03624", _BRIDGE),
    parameters=8_000_000_000,
    context=8192,
    layers=52,
    blocks={"M": Mamba2(channels=8192, state=128, groups=8, layer=_DT_LIMIT), "*": _ATTENTION, "-": _MLP},
    layout="M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-",
    model=_MODEL,
    claims=(
        Claim(
            "Up to three times as fast at inference as Qwen-2.5-7B/72B and Llama-3.1-8B/70B.",
            "no setting in the abstract; said of the family",
            "arXiv 2504.03624, abstract",
        ),
    ),
)

NEMOTRON_H_56B = Card(
    id="nemotron-h-56b",
    name="Nemotron-H 56B Base",
    organisation="NVIDIA",
    published="2025-04-04",
    sources=("arXiv 2504.03624", _BRIDGE, "Hugging Face nvidia/Nemotron-H-56B-Base-8K, card"),
    parameters=56_000_000_000,
    context=8192,
    layers=118,
    blocks={"M": Mamba2(channels=16_384, state=256, groups=8, layer=_DT_LIMIT), "*": _ATTENTION, "-": _MLP},
    layout="M-M-M-M*-" + "M-M-M-M-M*-" * 9 + "M-M-M-M-M-",
    model=_MODEL,
    claims=NEMOTRON_H_8B.claims,
)

NEMOTRON_NANO_12B = Card(
    id="nemotron-nano-12b-v2",
    name="Nemotron Nano 12B v2 Base",
    organisation="NVIDIA",
    published="2025-08-18",
    sources=("arXiv 2508.14444", _BRIDGE),
    parameters=12_000_000_000,
    context=131_072,
    layers=62,
    blocks={"M": Mamba2(channels=10_240, state=128, groups=8, layer=_DT_LIMIT), "*": _ATTENTION, "-": _MLP},
    layout="M-M-M-M*-" * 6 + "M-M-M-M-",
    model=_MODEL,
)

NEMOTRON_NANO_9B = Card(
    id="nemotron-nano-9b-v2",
    name="Nemotron Nano 9B v2",
    organisation="NVIDIA",
    published="2025-08-18",
    sources=("arXiv 2508.14444", _BRIDGE, "Hugging Face nvidia/NVIDIA-Nemotron-Nano-9B-v2, card"),
    parameters=9_000_000_000,
    context=131_072,
    layers=56,
    blocks=NEMOTRON_NANO_12B.blocks,
    layout="M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-",
    model=_MODEL,
    claims=(
        Claim(
            "Up to 6 times the inference throughput of Qwen3-8B.",
            "8k tokens in, 16k out",
            "arXiv 2508.14444, abstract",
        ),
    ),
    notes=(
        "Pruned from the 12B base, whose 6 attention layers of 62 are often quoted beside this model's speed.",
        "The card asks for a state in float32.",
    ),
)

NEMOTRON_3_NANO = Card(
    id="nemotron-3-nano-30b-a3b",
    name="Nemotron 3 Nano 30B-A3B",
    organisation="NVIDIA",
    published="2025-12-15",
    sources=("arXiv 2512.20856", _BRIDGE),
    parameters=30_000_000_000,
    active_parameters=3_500_000_000,
    context=1_048_576,
    layers=52,
    blocks={
        "M": Mamba2(channels=4096, state=128, groups=8, layer=_DT_LIMIT),
        "*": _FEW_HEADS,
        "E": MoE(experts=128, active=6, shared=1, layer=_ROUTER),
    },
    layout="MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME",
    model=_MODEL,
    claims=(
        Claim(
            "3.3 times the throughput of Qwen3-30B-A3B.",
            "8k tokens in, 16k out",
            "arXiv 2512.20856, §2.1 and figure 2",
        ),
    ),
    notes=("6 active experts by the config; a page of NVIDIA's documentation says 5.",),
)

NEMOTRON_3_SUPER = Card(
    id="nemotron-3-super-120b-a12b",
    name="Nemotron 3 Super 120B-A12B",
    organisation="NVIDIA",
    published="2026-03-11",
    sources=("arXiv 2604.12374", "github NVIDIA/Megatron-LM, launch scripts", "Hugging Face card"),
    parameters=120_000_000_000,
    active_parameters=12_000_000_000,
    context=1_048_576,
    layers=88,
    blocks={
        "M": Mamba2(channels=8192, state=128, groups=8, layer=_DT_LIMIT),
        "*": _FEW_HEADS,
        "E": MoE(experts=512, active=22, shared=1, latent=True, layer=_ROUTER),
    },
    layout="MEMEMEM*EMEMEMEM*EMEMEMEM*EMEMEMEMEM*EMEMEMEMEM*EMEMEMEMEM*EMEMEMEMEM*EMEMEMEM*EMEMEMEME",
    model=_MODEL,
    claims=(
        Claim(
            "Up to 2.2 times the inference throughput of GPT-OSS-120B, and up to 7.5 times that of Qwen3.5-122B.",
            "8k tokens in, 64k out (another page of NVIDIA's says 16k), B200, the better of vLLM and TensorRT-LLM for "
            "each model, Qwen3.5-122B in bfloat16: part of the 7.5 is precision",
            "arXiv 2604.12374, abstract, §1 and figure 1",
        ),
    ),
    notes=("Experts work in a latent space of width 1024.",),
)

NEMOTRON_3_ULTRA = Card(
    id="nemotron-3-ultra-550b-a55b",
    name="Nemotron 3 Ultra 550B-A55B",
    organisation="NVIDIA",
    published="2026-06",
    sources=("arXiv 2606.15007",),
    parameters=550_000_000_000,
    active_parameters=55_000_000_000,
    layers=108,
    blocks={
        "M": Mamba2(channels=16_384, state=128, groups=8, layer=_DT_LIMIT),
        "*": _FEW_HEADS,
        "E": MoE(shared=1, latent=True, layer=_ROUTER),
    },
    layout="ME" * 3 + ("M*EMEME" + "M*EMEMEME" + "M*EMEMEME") * 4 + "ME",
    model=_MODEL,
    claims=(
        Claim(
            "5.9, 4.8 and 1.6 times the output tokens per second and GPU of GLM-5.1-754B-A40B, Kimi-K2.6-1T-A32B and "
            "Qwen-3.5-397B-A17B, the last a hybrid too.",
            "8K tokens in, 64K out, NVFP4, GB200; Ultra on TensorRT-LLM, the others on vLLM; the best of with and "
            "without speculative decoding",
            "arXiv 2606.15007, figure 1",
        ),
    ),
    notes=("The order of the blocks is read off the multipliers in figure 2 of the report.",),
)
