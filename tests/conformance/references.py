"""Tiny random models of transformers, and their logits: over a sequence, and step by step with their own caches."""

import os

import torch

# Before transformers is imported: no network, no kernels from the hub.
os.environ |= {"USE_HUB_KERNELS": "0", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}

BATCH, LENGTH, PREFIX, VOCABULARY = 2, 20, 11, 64

# No family's default, and large: a norm of almost nothing multiplies rounding errors by up to ε^-1/2.
EPSILON = 1e-3

SIZES = {"vocab_size": VOCABULARY, "hidden_size": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SIZES |= {"layer_norm_epsilon": EPSILON, "rms_norm_eps": EPSILON}  # either name, as the family has it
ATTENTION = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48}
MAMBA = {"num_hidden_layers": 2, "state_size": 16, "conv_kernel": 4, "expand": 2, "time_step_rank": 4}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}

ARCHITECTURES = {
    "mamba": SIZES | MAMBA,
    "falcon_mamba": SIZES | MAMBA,
    "mamba2": SIZES
    | {"num_hidden_layers": 2, "state_size": 16, "num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 8},
    "jamba": SIZES
    | ATTENTION
    | EXPERTS
    | {"num_hidden_layers": 3, "attn_layer_period": 3, "attn_layer_offset": 1}
    | {"expert_layer_period": 2, "expert_layer_offset": 1, "mamba_d_state": 16, "mamba_dt_rank": 4},
    "zamba": SIZES
    | {"num_hidden_layers": 4, "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"], "n_mamba_heads": 2}
    | {"num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 48}
    | {"mamba_d_state": 16, "mamba_dt_rank": 4},
    "nemotron_h": SIZES
    | ATTENTION
    | {"layers_block_type": ["mamba", "mlp", "attention", "mamba", "moe"], "head_dim": 16, "n_groups": 2}
    | {"mamba_num_heads": 8, "mamba_head_dim": 8, "ssm_state_size": 16, "chunk_size": 8}
    | {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "moe_latent_size": 16}
    | {"moe_shared_expert_intermediate_size": 40, "routed_scaling_factor": 2.5},
    "recurrent_gemma": SIZES
    | ATTENTION
    | {"num_hidden_layers": 3, "block_types": ["recurrent", "recurrent", "attention"], "lru_width": 48}
    | {"attention_window_size": 8, "head_dim": 8},
    "qwen3_next": SIZES
    | ATTENTION
    | EXPERTS
    | {"num_hidden_layers": 3, "layer_types": [*2 * ["linear_attention"], "full_attention"], "head_dim": 16}
    | {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 12}
    | {"moe_intermediate_size": 24, "shared_expert_intermediate_size": 40, "mlp_only_layers": [1]},
}


def transformers():
    """The package, imported when the first test needs it and not when pytest collects."""
    import transformers

    return transformers


def build(architecture, **changes):
    """A model with weights so large that every part of it shows in the logits."""
    torch.manual_seed(0)
    config = transformers().AutoConfig.for_model(architecture, **ARCHITECTURES[architecture] | changes)
    model = transformers().AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval().float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            if parameter.ndim < 2 or name.endswith(("A_log", ".D", "bias")):
                parameter.add_(0.2 * noise)
            else:
                parameter.copy_(0.85 * noise / parameter.shape[-1] ** 0.5)
    return model


def ids():
    return torch.randint(3, VOCABULARY, (BATCH, LENGTH), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def sequence(model):
    return model(ids(), use_cache=False).logits


@torch.no_grad()
def stepwise(model):
    """A prefix at once, then token by token."""
    name, cache = "past_key_values", None
    if model.config.model_type == "recurrent_gemma":  # its output drops the cache: hand one in and keep it
        model.model._setup_cache(model.config, BATCH, "cpu", torch.float32)
        cache = transformers().DynamicCache(config=model.config)
    logits = []
    for piece in (ids()[:, :PREFIX], *ids()[:, PREFIX:].split(1, dim=1)):
        output = model(piece, use_cache=True, **{name: cache})
        logits.append(output.logits)
        name = "cache_params" if "cache_params" in output else "past_key_values"
        cache = getattr(output, name, cache)
    return torch.cat(logits, dim=1)
