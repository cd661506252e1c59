"""Zamba: Mamba blocks, some of which first ask one attention block that they all share."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ssm_kit.layers import zamba_weights
from ssm_kit.models.config import ModelConfig
from ssm_kit.models.families._translate import Weights, rename, require, without_tied_head

LETTERS = {"linear_attention": "M", "hybrid": "Z"}


def zamba(config: Mapping[str, Any], weights: Weights) -> tuple[ModelConfig, Weights]:
    """transformers' "zamba" (arXiv 2405.16712)."""
    heads, width = config["num_attention_heads"], 2 * config["hidden_size"]
    require(config, hidden_act="gelu", hidden_mamba_act="silu", num_key_value_heads=heads)
    require(config, attention_hidden_size=width, attention_head_dim=width // heads)
    translated = ModelConfig(
        vocab_size=config["vocab_size"],
        d_model=config["hidden_size"],
        pattern=[LETTERS[kind] for kind in config["layers_block_type"]],
        blocks={"M": _mamba(config), "Z": _mamba(config) | {"shared": _shared(config)}},
        norm_eps=config["rms_norm_eps"],
        tied_head=config["tie_word_embeddings"],
        residual_in_fp32=False,
    )
    weights = without_tied_head(_renamed(weights, translated.pattern), translated.tied_head)
    for layer in range(len(translated.pattern)):
        prefix = f"layers.{layer}.mixer."
        mixer = {name: weights.pop(name) for name in list(weights) if name.startswith(prefix)}
        mixer = zamba_weights({name.removeprefix(prefix): tensor for name, tensor in mixer.items()})
        weights |= {prefix + name: tensor for name, tensor in mixer.items()}
    return translated, weights


def _mamba(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "layer": "Mamba",
        "d_state": config["mamba_d_state"],
        "d_conv": config["mamba_d_conv"],
        "expand": config["mamba_expand"],
        "dt_rank": config["mamba_dt_rank"],
        "conv_bias": config["mamba_conv_bias"],
        "bias": config["mamba_proj_bias"],
        "num_heads": config["n_mamba_heads"],
    }


def _shared(config: Mapping[str, Any]) -> dict[str, Any]:
    sizes = {"num_heads": config["num_attention_heads"], "d_ff": config["intermediate_size"]}
    return sizes | {"norm_eps": config["rms_norm_eps"]}


def _renamed(weights: Weights, pattern: Sequence[str]) -> Weights:
    """Blocks' own weights under layers.N, the shared ones, which transformers lists at every call, once."""
    calls = [place for place, kind in enumerate(pattern) if kind == "Z"]
    weights = rename(
        weights,
        (r"^model\.", ""),
        (r"^embed_tokens\.", "embeddings."),
        (r"^final_layernorm\.", "norm_f."),
        (r"\.mamba_decoder\.", "."),
        (r"\.mamba\.", ".mixer."),
        (r"^(layers\.\d+)\.input_layernorm\.", r"\1.norm."),
        (r"^layers\.\d+\.shared_transf\.", "shared.Z."),
    )
    linear = re.compile(r"^layers\.(\d+)\.linear\.")
    return {
        linear.sub(lambda match: f"shared.Z.linear.{calls.index(int(match[1]))}.", name): tensor
        for name, tensor in weights.items()
    }
