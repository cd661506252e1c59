"""Mamba, Falcon Mamba and Mamba-2: blocks of one kind, parameters already named as ours.

Their checkpoints come in two layouts: transformers' (`state-spaces/mamba-130m-hf`) and that of the authors' package
mamba_ssm (`state-spaces/mamba-130m`, `mamba2-130m`), which differ in config.json and in one name of a weight.
"""

from collections.abc import Mapping
from typing import Any

from ssm_kit.models.config import ModelConfig
from ssm_kit.models.families._translate import Weights, rename, require, without_tied_head

NAMES = ((r"^backbone\.", ""), (r"^embedding\.", "embeddings."))


def mamba(config: Mapping[str, Any], weights: Weights) -> tuple[ModelConfig, Weights]:
    """transformers' "mamba" (arXiv 2312.00752)."""
    return _mamba(config, weights)


def falcon_mamba(config: Mapping[str, Any], weights: Weights) -> tuple[ModelConfig, Weights]:
    """transformers' "falcon_mamba" (arXiv 2410.05355): norms without weights on Δ, B and C."""
    return _mamba(config, weights, bcdt_norm="weightless", norm_eps=config.get("mixer_rms_eps", 1e-6))


def mamba2(config: Mapping[str, Any], weights: Weights) -> tuple[ModelConfig, Weights]:
    """transformers' "mamba2" (arXiv 2405.21060)."""
    block = {"layer": "Mamba2", "d_state": config.get("state_size", 128), "headdim": config.get("head_dim", 64)}
    block |= {"nheads": config.get("num_heads", 128), "ngroups": config.get("n_groups", 8)}
    block |= {"dt_limit": config.get("time_step_limit", (0.0, float("inf")))}
    return _stack(config, weights, block | {"norm_eps": config.get("layer_norm_epsilon", 1e-5)}, tied=False)


def mamba_ssm(config: Mapping[str, Any], weights: Weights) -> tuple[ModelConfig, Weights]:
    """mamba_ssm's `MambaLMHeadModel` (MambaConfig there) without attention and MLP, Mamba or Mamba-2."""
    require(config, rms_norm=True, d_intermediate=0, attn_layer_idx=[])
    block = {"layer": "Mamba1"} | config.get("ssm_cfg", {})
    names = {"Mamba1": "Mamba", "Mamba2": "Mamba2"}
    if block["layer"] not in names:
        raise ValueError(f"config.ssm_cfg.layer must be one of {', '.join(names)}; got {block['layer']!r}")
    padding = -config["vocab_size"] % config.get("pad_vocab_size_multiple", 8)  # the tables are longer than the text
    translated = ModelConfig(
        vocab_size=config["vocab_size"] + padding,
        d_model=config["d_model"],
        pattern="M" * config["n_layer"],
        blocks={"M": block | {"layer": names[block["layer"]]}},
        norm_eps=1e-5,
        tied_head=config.get("tie_embeddings", True),
        residual_in_fp32=config.get("residual_in_fp32", True),
    )
    return translated, without_tied_head(rename(weights, *NAMES), translated.tied_head)


def _mamba(config: Mapping[str, Any], weights: Weights, **norms: Any) -> tuple[ModelConfig, Weights]:
    block = {"layer": "Mamba", "d_state": config.get("state_size", 16), "expand": config.get("expand", 2)}
    return _stack(config, weights, block | {"dt_rank": config.get("time_step_rank", "auto")} | norms, tied=True)


def _stack(
    config: Mapping[str, Any], weights: Weights, block: dict[str, Any], tied: bool
) -> tuple[ModelConfig, Weights]:
    """The parts of the config that all three share. `tied` is transformers' default of tie_word_embeddings."""
    require(config, hidden_act="silu")
    block |= {"d_conv": config.get("conv_kernel", 4), "bias": config.get("use_bias", False)}
    translated = ModelConfig(
        vocab_size=config["vocab_size"],
        d_model=config["hidden_size"],
        pattern="M" * config["num_hidden_layers"],
        blocks={"M": block | {"conv_bias": config.get("use_conv_bias", True)}},
        norm_eps=config.get("layer_norm_epsilon", 1e-5),
        tied_head=config.get("tie_word_embeddings", tied),
        residual_in_fp32=config.get("residual_in_fp32", True),
    )
    return translated, without_tied_head(rename(weights, *NAMES), translated.tied_head)
