"""Jamba: Mamba with an attention layer in every eight, an MLP or experts after each."""

from collections.abc import Mapping
from typing import Any

from ssm_kit.models.config import ModelConfig
from ssm_kit.models.families._translate import Weights, rename, require, two_blocks_per_layer, without_tied_head


def jamba(config: Mapping[str, Any], weights: Weights) -> tuple[ModelConfig, Weights]:
    """transformers' "jamba" (arXiv 2403.19887)."""
    require(config, hidden_act="silu")
    pattern = "".join(_mixer(config, layer) + _mlp(config, layer) for layer in range(config["num_hidden_layers"]))
    blocks = {"M": _mamba(config), "*": _attention(config), "-": {"layer": "MLP", "d_ff": config["intermediate_size"]}}
    translated = ModelConfig(
        vocab_size=config["vocab_size"],
        d_model=config["hidden_size"],
        pattern=pattern,
        blocks=blocks | {"E": _experts(config)},
        norm_eps=config["rms_norm_eps"],
        tied_head=config["tie_word_embeddings"],
        residual_in_fp32=False,
    )
    top = ((r"^model\.", ""), (r"^embed_tokens\.", "embeddings."), (r"^final_layernorm\.", "norm_f."))
    weights = rename(weights, *top, (r"\.feed_forward\.router\.", ".feed_forward.gate."))
    first = {"mamba": "mixer", "self_attn": "mixer", "input_layernorm": "norm"}
    weights = two_blocks_per_layer(weights, first, {"feed_forward": "mixer", "pre_ff_layernorm": "norm"})
    return translated, without_tied_head(weights, translated.tied_head)


def _mixer(config: Mapping[str, Any], layer: int) -> str:
    return "*" if layer % config["attn_layer_period"] == config["attn_layer_offset"] else "M"


def _mlp(config: Mapping[str, Any], layer: int) -> str:
    sparse = layer % config["expert_layer_period"] == config["expert_layer_offset"]
    return "E" if sparse and config["num_experts"] > 1 else "-"


def _mamba(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "layer": "Mamba",
        "d_state": config["mamba_d_state"],
        "d_conv": config["mamba_d_conv"],
        "expand": config["mamba_expand"],
        "dt_rank": config["mamba_dt_rank"],
        "conv_bias": config["mamba_conv_bias"],
        "bias": config["mamba_proj_bias"],
        "bcdt_norm": "learned",
        "norm_eps": config["rms_norm_eps"],
    }


def _attention(config: Mapping[str, Any]) -> dict[str, Any]:
    heads = {"num_heads": config["num_attention_heads"], "num_kv_heads": config["num_key_value_heads"]}
    return {"layer": "Attention", **heads}  # no positions: the Mamba layers know the order


def _experts(config: Mapping[str, Any]) -> dict[str, Any]:
    experts = {"num_experts": config["num_experts"], "top_k": config["num_experts_per_tok"]}
    return {"layer": "MoE", "d_ff": config["intermediate_size"], **experts}
