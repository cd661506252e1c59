"""A tiny model makes every choice of its architecture as transformers' config of the family does; only sizes differ."""

import inspect
import sys

import pytest
import transformers

from ssm_kit import layers, zoo
from ssm_kit.models import families
from ssm_kit.models.config import ModelConfig

CONFIGS = {
    "mamba-2.8b": lambda: transformers.MambaConfig(),
    "mamba2-2.7b": lambda: transformers.Mamba2Config(tie_word_embeddings=True),  # as mamba_ssm's own config
    "falcon-mamba-7b": lambda: transformers.FalconMambaConfig(tie_word_embeddings=False),  # as the checkpoint
    "jamba-v0.1": lambda: transformers.JambaConfig(),
    "zamba-7b": lambda: transformers.ZambaConfig(),
    "recurrentgemma-2b": lambda: transformers.RecurrentGemmaConfig(num_key_value_heads=1),  # as the checkpoint
    "nemotron-h-8b": lambda: transformers.NemotronHConfig(layers_block_type=["mamba", "mlp", "attention", "mlp"]),
    "nemotron-3-nano-30b-a3b": lambda: transformers.NemotronHConfig(),
    "qwen3-next-80b-a3b": lambda: transformers.Qwen3NextConfig(),
}
SIZES = {"d_state", "headdim", "nheads", "ngroups", "head_dim", "d_ff", "shared_d_ff", "lru_width", "window", "dt_rank"}
SIZES |= {"num_heads", "num_kv_heads", "num_k_heads", "num_v_heads", "head_k_dim", "head_v_dim", "chunk_size"}
SIZES |= {"num_experts", "top_k"}
PRESENCE = {"window", "shared_d_ff"}  # a size that may be None: whether it is one is a choice
MODEL = ("norm_eps", "zero_centered_norm", "tied_head", "logit_softcap", "residual_in_fp32")


def choices(block: dict) -> dict:
    """All arguments of the layer that are no sizes, defaults filled in."""
    parameters = inspect.signature(getattr(layers, block["layer"]).__init__).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
    arguments = defaults | block
    kept = {name: value for name, value in arguments.items() if name not in SIZES | {"shared"}}
    kept |= {name: arguments.get(name) is not None for name in PRESENCE}
    kept["shared"] = choices({"layer": "SharedAttention", **block["shared"]}) if "shared" in block else None
    return {name: list(value) if isinstance(value, tuple) else value for name, value in kept.items()}


def grouping(block: dict) -> str:
    """How many key heads serve the query heads: "one", "all" or "some"."""
    kv_heads = block.get("num_kv_heads") or block["num_heads"]
    return {1: "one", block["num_heads"]: "all"}.get(kv_heads, "some")


@pytest.mark.parametrize("id", CONFIGS)
def test_every_choice_is_that_of_the_family(id, monkeypatch):
    # The config alone is translated: there are no weights to reshape.
    monkeypatch.setattr(sys.modules["ssm_kit.models.families.zamba"], "zamba_weights", dict)
    config = CONFIGS[id]()
    theirs: ModelConfig = families.FAMILIES[config.model_type](config.to_dict(), {})[0]
    ours = zoo.get(id).tiny()
    assert {name: getattr(ours, name) for name in MODEL} == {name: getattr(theirs, name) for name in MODEL}
    for kind in set(ours.pattern):
        assert choices(ours.blocks[kind]) == choices(theirs.blocks[kind])
        if ours.blocks[kind]["layer"] == "Attention":
            assert grouping(ours.blocks[kind]) == grouping(theirs.blocks[kind])
    assert (ours.embedding_scale == 1) == (theirs.embedding_scale == 1)
