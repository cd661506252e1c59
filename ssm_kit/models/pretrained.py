"""Models of others: from transformers' objects, and from the public Mamba checkpoints."""

from typing import Any

from ssm_kit.models.checkpoint import assemble
from ssm_kit.models.families import FAMILIES
from ssm_kit.models.language_model import LanguageModel


def from_transformers(model: Any) -> LanguageModel:
    """A copy of a transformers causal language model that runs on this package's layers and operators.

    Args:
        model: one of Mamba, Mamba-2, Falcon Mamba, Jamba, Zamba, Nemotron-H, RecurrentGemma, Qwen3-Next
            (`MambaForCausalLM` and so on; transformers 5.23).

    Returns:
        The model, with its own copy of the weights in their dtypes, on the CPU.

    Raises:
        ValueError: another family, or a setting that the layers here do not implement.
    """
    family = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    if family not in FAMILIES:
        raise ValueError(f"model must be of a family among {', '.join(FAMILIES)}; got {family!r}")
    weights = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    config, weights = FAMILIES[family](model.config.to_dict(), weights)
    return assemble(config, weights, None, None)
