"""AdamW's two groups of parameters, and the learning rate over time."""

import math

from torch import nn


def decayed(model: nn.Module) -> dict[str, bool]:
    """Which trainable parameters weight decay pulls towards zero, by name.

    Matrices are; vectors (norms, biases) are not, nor what a layer has marked with `_no_weight_decay = True`: Mamba
    marks A_log and D, whose zero means something else than "no influence".
    """
    trainable = ((name, p) for name, p in model.named_parameters() if p.requires_grad)
    return {name: p.ndim > 1 and not getattr(p, "_no_weight_decay", False) for name, p in trainable}


def parameter_groups(model: nn.Module, decay: dict[str, bool], weight_decay: float) -> list[dict]:
    """The groups that `torch.optim.AdamW` takes.

    Args:
        model: its parameters, as they are now; sharding may have replaced those that `decay` was made from.
        decay: as from `decayed`.
        weight_decay: of the first group; the second has 0.

    Raises:
        ValueError: no parameter can be trained.
    """
    named = dict(model.named_parameters())
    if not decay:
        raise ValueError(f"model: expected parameters with requires_grad; got {len(named)} without")
    groups = [{"params": [named[name] for name in decay if decay[name]], "weight_decay": weight_decay}]
    groups += [{"params": [named[name] for name in decay if not decay[name]], "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def learning_rate(step: int, *, steps: int, warmup: int, peak: float, final: float) -> float:
    """Linear from peak / warmup at step 0 to the peak, then half a cosine to final · peak at the last step."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - 1 - warmup)
    return peak * (final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2)
