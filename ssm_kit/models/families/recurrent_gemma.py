"""Griffin, released as RecurrentGemma: RG-LRU and attention to a window, an MLP after each."""

from collections.abc import Mapping
from itertools import cycle, islice
from typing import Any

import torch

from ssm_kit.models.config import ModelConfig
from ssm_kit.models.families._translate import Weights, rename, require, two_blocks_per_layer, without_tied_head

LETTERS = {"recurrent": "R-", "attention": "L-"}


def recurrent_gemma(config: Mapping[str, Any], weights: Weights) -> tuple[ModelConfig, Weights]:
    """transformers' "recurrent_gemma" (arXiv 2402.19427, 2404.07839)."""
    require(config, hidden_activation="gelu_pytorch_tanh")
    kinds = islice(cycle(config["block_types"]), config["num_hidden_layers"])
    mlp = {"layer": "MLP", "d_ff": config["intermediate_size"] // 2, "kind": "geglu_tanh", "bias": True}
    translated = ModelConfig(
        vocab_size=config["vocab_size"],
        d_model=config["hidden_size"],
        pattern="".join(LETTERS[kind] for kind in kinds),
        blocks={"R": _recurrent(config), "L": _attention(config), "-": mlp},
        norm_eps=config["rms_norm_eps"],
        zero_centered_norm=True,
        # √d_model as bfloat16 holds it: it was trained so.
        embedding_scale=torch.tensor(config["hidden_size"] ** 0.5, dtype=torch.bfloat16).item(),
        tied_head=config["tie_word_embeddings"],
        logit_softcap=config["logits_soft_cap"],
        residual_in_fp32=False,
    )
    weights = rename(weights, (r"^model\.", ""), (r"^embed_tokens\.", "embeddings."), (r"^final_norm\.", "norm_f."))
    first = {"temporal_block": "mixer", "temporal_pre_norm": "norm"}
    weights = two_blocks_per_layer(weights, first, {"mlp_block": "mixer", "channel_pre_norm": "norm"})
    return translated, without_tied_head(weights, translated.tied_head)


def _recurrent(config: Mapping[str, Any]) -> dict[str, Any]:
    sizes = {"lru_width": config["lru_width"], "num_heads": config["num_attention_heads"]}
    return {"layer": "RGLRU", **sizes, "d_conv": config["conv1d_width"]}


def _attention(config: Mapping[str, Any]) -> dict[str, Any]:
    rope = config["rope_parameters"]
    require(rope, rope_type="default")
    return {
        "layer": "Attention",
        "num_heads": config["num_attention_heads"],
        "num_kv_heads": config["num_key_value_heads"],
        "head_dim": config["head_dim"],
        "rope": rope["rope_theta"],
        "rotary_fraction": rope["partial_rotary_factor"],
        "window": config["attention_window_size"],
        "bias": config["attention_bias"],
        "out_bias": True,
    }
