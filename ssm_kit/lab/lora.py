"""LoRA by peft: train small additions to chosen linear layers, leave all other weights as they are."""

from collections.abc import Iterable

from torch import nn

from ssm_kit.lab.tasks.task import require


def add_lora(model: nn.Module, targets: Iterable[str], *, rank: int = 8, alpha: int = 16) -> list[str]:
    """Give linear layers a trainable addition of low rank, W + (alpha / rank) · B A, in place; freeze the rest.

    Hu and others, arXiv 2106.09685. B starts at zero, so the model computes what it did. Convolutions, A_log, D and Δ's
    bias have no linear layer and stay frozen: with LoRA, a state-space layer keeps its time scales.

    Args:
        model: any module. An addition acts where a layer is called, not where its weight is read: Mamba's dt_proj, a
            part of the scan, cannot have one, and `train` warns of such.
        targets: names of linear layers, such as "in_proj", "out_proj"; each must occur.
        rank: of the addition.
        alpha: its scale.

    Returns:
        the full names of the layers that were changed.

    Raises:
        ValueError: rank < 1, or a target that names no `nn.Linear` of the model.
        ImportError: without peft.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model  # seconds to import, and only needed here
    except ImportError as error:
        raise ImportError('add_lora needs peft: pip install "ssm_kit[lab]"') from error

    targets = list(targets)
    require(rank >= 1, "rank", "at least 1", rank)
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    known = sorted({name.rpartition(".")[2] for name in linear})
    missing = [target for target in targets if target not in known]
    require(bool(targets) and not missing, "targets", f"names of linear layers, of {', '.join(known)}", missing)
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets), model)
    return [name for name in linear if name.rpartition(".")[2] in targets]


def merge_lora(model: nn.Module) -> None:
    """Add the additions into the weights and put plain `nn.Linear` layers back, all trainable."""
    from peft.tuners.lora import LoraLayer

    adapted = [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)]
    for name, module in adapted:
        module.merge()
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, module.get_base_layer())
    model.requires_grad_(True)
