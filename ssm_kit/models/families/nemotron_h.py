"""Nemotron-H, Nemotron Nano 2 and Nemotron 3: one operation per block, as here."""

from collections.abc import Mapping
from typing import Any

from ssm_kit.models.config import ModelConfig
from ssm_kit.models.families._translate import Weights, rename, require, without_tied_head

LETTERS = {"linear_attention": "M", "full_attention": "*", "mlp": "-", "moe": "E"}  # as NVIDIA writes its patterns


def nemotron_h(config: Mapping[str, Any], weights: Weights) -> tuple[ModelConfig, Weights]:
    """transformers' "nemotron_h" (arXiv 2504.03624, 2508.14444, 2512.20856)."""
    require(config, mamba_hidden_act="silu", mlp_hidden_act="relu2", attention_bias=False, sliding_window=None)
    pattern = [LETTERS[kind] for kind in config["layers_block_type"]]
    blocks = {"M": _mamba2, "*": _attention, "-": _mlp, "E": _experts}
    translated = ModelConfig(
        vocab_size=config["vocab_size"],
        d_model=config["hidden_size"],
        pattern=pattern,
        blocks={kind: blocks[kind](config) for kind in dict.fromkeys(pattern)},
        norm_eps=config["layer_norm_epsilon"],
        tied_head=config["tie_word_embeddings"],
        residual_in_fp32=False,  # the config has such a field, but the model does not read it
    )
    weights = rename(weights, (r"^model\.", ""), (r"\.shared_experts\.", ".shared_expert."))
    return translated, without_tied_head(weights, translated.tied_head)


def _mamba2(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "layer": "Mamba2",
        "d_state": config["ssm_state_size"],
        "d_conv": config["conv_kernel"],
        "headdim": config["mamba_head_dim"],
        "nheads": config["mamba_num_heads"],
        "ngroups": config["n_groups"],
        "dt_limit": (config["time_step_min"], float("inf")),  # not time_step_limit: the model does not read it
        "conv_bias": config["use_conv_bias"],
        "bias": config["use_bias"],
        "norm_eps": config["layer_norm_epsilon"],
    }


def _attention(config: Mapping[str, Any]) -> dict[str, Any]:
    heads = {"num_heads": config["num_attention_heads"], "num_kv_heads": config["num_key_value_heads"]}
    return {"layer": "Attention", **heads, "head_dim": config["head_dim"]}


def _mlp(config: Mapping[str, Any]) -> dict[str, Any]:
    return {"layer": "MLP", "d_ff": config["intermediate_size"], "kind": "relu2", "bias": config["mlp_bias"]}


def _experts(config: Mapping[str, Any]) -> dict[str, Any]:
    require(config, n_group=1, topk_group=1, mlp_bias=False)
    return {
        "layer": "MoE",
        "d_ff": config["moe_intermediate_size"],
        "num_experts": config["n_routed_experts"],
        "top_k": config["num_experts_per_tok"],
        "kind": "relu2",
        "score": "sigmoid",
        "normalize": config["norm_topk_prob"],
        "scale": config["routed_scaling_factor"],
        "shared_d_ff": config["moe_shared_expert_intermediate_size"],
        "latent": config["moe_latent_size"],
    }
