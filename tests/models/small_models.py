"""Small models for the tests of this folder."""

import torch

from ssm_kit.models import LanguageModel, ModelConfig

VOCABULARY = 32

BLOCKS = {
    "S": {"layer": "Mamba", "d_state": 4},
    "M": {"layer": "Mamba2", "d_state": 8, "headdim": 8},
    "*": {"layer": "Attention", "num_heads": 4, "num_kv_heads": 2},
    "L": {"layer": "Attention", "num_heads": 2, "rope": 10000.0, "window": 4},
    "-": {"layer": "MLP", "d_ff": 24},
    "4": {"layer": "S4", "d_state": 4},
    "D": {"layer": "S4D", "d_state": 4},
    "K": {"layer": "LinearAttention", "num_heads": 2},
    "G": {"layer": "GatedDeltaNet", "num_k_heads": 1, "num_v_heads": 2, "head_k_dim": 4, "head_v_dim": 4},
    "R": {"layer": "RGLRU"},
    "E": {"layer": "MoE", "d_ff": 12, "num_experts": 4, "top_k": 2},
    "Z": {"layer": "Mamba", "d_state": 4, "shared": {"num_heads": 4, "d_ff": 24}},
}


def config(pattern, **changes):
    return ModelConfig(**{"vocab_size": VOCABULARY, "d_model": 16, "pattern": pattern, "blocks": BLOCKS} | changes)


def build(pattern, **changes):
    """A model with large random weights: its next token depends on all that came before."""
    torch.manual_seed(0)
    model = LanguageModel(config(pattern, **{"tied_head": False} | changes))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name in ("embeddings.weight", "lm_head.weight"):
                weight.mul_(30)
            elif weight.ndim > 1 and not name.endswith("A_log"):
                weight.mul_(3)
    return model


def random_ids(*shape, seed=1):
    return torch.randint(0, VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))
