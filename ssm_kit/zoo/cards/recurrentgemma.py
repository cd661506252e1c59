"""RecurrentGemma, the released form of Griffin: two recurrent blocks, then attention to a window."""

from ssm_kit.zoo.blocks import MLP, RGLRU, Attention
from ssm_kit.zoo.card import Card, Claim

_SOURCES = ("arXiv 2402.19427", "arXiv 2404.07839", "github google-deepmind/recurrentgemma, common.py")
_ROTARY = {"rope": 10_000.0, "rotary_fraction": 0.5, "out_bias": True}
_MLP = MLP(layer={"kind": "geglu_tanh", "bias": True})
_MODEL = {
    "norm_eps": 1e-6,
    "zero_centered_norm": True,
    "logit_softcap": 30.0,
    "residual_in_fp32": False,
}
_CLAIMS = (
    Claim(
        "Griffin has lower latency and significantly higher throughput at inference than a Transformer with one key "
        "head.",
        "models of 1B parameters; latency at batch 16; prefill of none and of 4K tokens; no factor in the text",
        "arXiv 2402.19427, §5",
    ),
)
_NOTES = ("All attention is local: the cache stops growing at 2048 tokens.",)

RECURRENTGEMMA_2B = Card(
    id="recurrentgemma-2b",
    name="RecurrentGemma 2B",
    organisation="Google DeepMind",
    published="2024-04",
    sources=(*_SOURCES, "config.json of google/recurrentgemma-2b"),
    parameters=2_000_000_000,
    layers=26,
    blocks={
        "R": RGLRU(width=2560),
        "L": Attention(kv_heads=1, head_dim=256, query_heads=10, window=2048, layer=_ROTARY),
        "-": _MLP,
    },
    layout="R-R-L-" * 8 + "R-R-",
    model=_MODEL,
    scaled_embeddings=True,
    claims=_CLAIMS,
    notes=_NOTES,
)

RECURRENTGEMMA_9B = Card(
    id="recurrentgemma-9b",
    name="RecurrentGemma 9B",
    organisation="Google DeepMind",
    published="2024",
    sources=(*_SOURCES, "config.json of google/recurrentgemma-9b"),
    parameters=9_000_000_000,
    layers=38,
    blocks={
        "R": RGLRU(width=4096),
        "L": Attention(kv_heads=1, head_dim=256, query_heads=16, window=2048, layer=_ROTARY),
        "-": _MLP,
    },
    layout="R-R-L-" * 12 + "R-R-",
    model=_MODEL,
    scaled_embeddings=True,
    claims=_CLAIMS,
    notes=_NOTES,
)
