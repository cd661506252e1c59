"""Qwen3-Next: Gated DeltaNet with gated attention in every fourth layer, experts after each."""

from collections.abc import Mapping
from typing import Any

from ssm_kit.models.config import ModelConfig
from ssm_kit.models.families._translate import Weights, rename, require, two_blocks_per_layer, without_tied_head

LETTERS = {"linear_attention": "G", "full_attention": "*"}


def qwen3_next(config: Mapping[str, Any], weights: Weights) -> tuple[ModelConfig, Weights]:
    """transformers' "qwen3_next" (Qwen/Qwen3-Next-80B-A3B; the mixer is arXiv 2412.06464)."""
    require(config, hidden_act="silu")
    layers = enumerate(config["layer_types"])
    mlp = {"layer": "MLP", "d_ff": config["intermediate_size"]}
    translated = ModelConfig(
        vocab_size=config["vocab_size"],
        d_model=config["hidden_size"],
        pattern="".join(LETTERS[kind] + _mlp(config, layer) for layer, kind in layers),
        blocks={"G": _deltanet(config), "*": _attention(config), "-": mlp, "E": _experts(config)},
        norm_eps=config["rms_norm_eps"],
        zero_centered_norm=True,
        tied_head=config["tie_word_embeddings"],
        residual_in_fp32=False,
    )
    weights = rename(weights, (r"^model\.", ""), (r"^embed_tokens\.", "embeddings."), (r"^norm\.", "norm_f."))
    first = {"linear_attn": "mixer", "self_attn": "mixer", "input_layernorm": "norm"}
    weights = two_blocks_per_layer(weights, first, {"mlp": "mixer", "post_attention_layernorm": "norm"})
    return translated, without_tied_head(weights, translated.tied_head)


def _mlp(config: Mapping[str, Any], layer: int) -> str:
    sparse = layer not in config["mlp_only_layers"] and (layer + 1) % config["decoder_sparse_step"] == 0
    return "E" if sparse and config["num_experts"] > 0 else "-"


def _deltanet(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "layer": "GatedDeltaNet",
        "num_k_heads": config["linear_num_key_heads"],
        "num_v_heads": config["linear_num_value_heads"],
        "head_k_dim": config["linear_key_head_dim"],
        "head_v_dim": config["linear_value_head_dim"],
        "d_conv": config["linear_conv_kernel_dim"],
        "norm_eps": config["rms_norm_eps"],
    }


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
        "qk_norm": True,
        "norm_eps": config["rms_norm_eps"],
        "output_gate": True,
        "bias": config["attention_bias"],
    }


def _experts(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "layer": "MoE",
        "d_ff": config["moe_intermediate_size"],
        "num_experts": config["num_experts"],
        "top_k": config["num_experts_per_tok"],
        "normalize": config["norm_topk_prob"],
        "shared_d_ff": config["shared_expert_intermediate_size"],
        "shared_gate": True,
    }
