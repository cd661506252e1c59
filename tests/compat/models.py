"""Tiny random models of transformers: their numbers, saved for comparison.

    python models.py FILE [install]

writes {architecture: {"calls", "logits", "decoded", "gradients"}} to FILE; `install` puts our operators in first.
"""

import sys
from collections import Counter

import torch

import ssm_kit.compat
from ssm_kit.compat import causal_conv1d, fla, mamba_ssm

SIZES = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": 0, "bos_token_id": 1}
ATTENTION = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64}
MAMBA = {"state_size": 16, "conv_kernel": 4, "expand": 2, "time_step_rank": 4}
EXPERTS = {"num_experts": 2, "num_experts_per_tok": 1}

ARCHITECTURES = {
    "mamba": SIZES | MAMBA,
    "falcon_mamba": SIZES | MAMBA,
    "mamba2": SIZES | {"state_size": 16, "num_heads": 8, "head_dim": 8, "expand": 2, "n_groups": 2, "chunk_size": 8},
    "jamba": SIZES
    | ATTENTION
    | EXPERTS
    | {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1}
    | {"mamba_d_state": 16, "mamba_dt_rank": 4},
    "nemotron_h": SIZES
    | ATTENTION
    | {"head_dim": 8, "layers_block_type": ["mamba", "attention"], "mamba_num_heads": 8, "mamba_head_dim": 8}
    | {"ssm_state_size": 16, "n_groups": 2, "chunk_size": 8, "n_routed_experts": 2, "num_experts_per_tok": 1}
    | {"moe_intermediate_size": 32, "moe_shared_expert_intermediate_size": 32},
    "qwen3_next": SIZES
    | ATTENTION
    | EXPERTS
    | {"head_dim": 8, "layer_types": ["linear_attention", "full_attention"], "linear_conv_kernel_dim": 4}
    | {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
    | {"moe_intermediate_size": 32, "shared_expert_intermediate_size": 32},
}

LENGTH, PREFIX = 20, 11

calls: Counter[str] = Counter()


def count(module, name):
    """Count the calls of an operator by our stand-ins."""
    operator = getattr(module, name)

    def counted(*args, **kwargs):
        calls[name] += 1
        return operator(*args, **kwargs)

    setattr(module, name, counted)


def build(architecture, **changes):
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture, **ARCHITECTURES[architecture] | changes)
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").float()


@torch.no_grad()
def decode(model, ids):
    """Logits of a prefix, then token by token with the cache."""
    output = model(ids[:, :PREFIX], use_cache=True)
    name = "cache_params" if getattr(output, "cache_params", None) is not None else "past_key_values"
    logits = [output.logits]
    for t in range(PREFIX, LENGTH):
        output = model(ids[:, t : t + 1], use_cache=True, **{name: getattr(output, name)})
        logits.append(output.logits)
    return torch.cat(logits, dim=1)


def numbers(architecture):
    calls.clear()
    model = build(architecture)
    ids = torch.randint(3, 64, (2, LENGTH), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, :4] = 0  # padding on the left
    model.train()
    output = model(ids, attention_mask=mask, labels=ids, use_cache=False)
    output.loss.backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    model.eval()
    return {"logits": output.logits.detach(), "gradients": gradients, "decoded": decode(model, ids), "calls": [*calls]}


if __name__ == "__main__":
    torch.set_num_threads(1)
    file, *install = sys.argv[1:]
    for module, name in [
        (mamba_ssm, "selective_scan"),
        (mamba_ssm, "selective_scan_step"),
        (mamba_ssm, "ssd"),
        (causal_conv1d, "causal_conv1d"),
        (fla, "gated_delta_rule"),
    ]:
        count(module, name)
    if install:
        ssm_kit.compat.install()
    torch.save({architecture: numbers(architecture) for architecture in ARCHITECTURES}, file)
