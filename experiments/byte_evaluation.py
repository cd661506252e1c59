"""How well a byte model predicts the same held-out bytes, given less or more text before them."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ssm_kit.lab.tasks.text import corpus
from ssm_kit.models import LanguageModel

TOKENS_AT_ONCE = {"cpu": 2**12, "cuda": 2**17}
PIECE = 2048
"""A sliding window reads longer text in pieces of this: its mask is (piece, piece + window) then."""


@torch.no_grad()
def loss_by_context(
    model: LanguageModel, contexts: Sequence[int], *, longest: int, scored: int, precision: str
) -> list[float]:
    """Mean loss of the same bytes at every context, in nats a byte.

    Scored are held-out bytes number 2 · longest to 2 · longest + scored. For a context c the text is cut so that each
    of them is predicted once, by a model that has read c + 1 to 2c bytes before it and nothing else.

    Args:
        model: over bytes; its device computes.
        contexts: whole numbers from 1 to `longest` that divide `scored`.
        longest: what decides where the scored bytes begin.
        scored: how many.
        precision: "fp32", or "bf16" for autocast, as in `ssm_kit.lab.Settings`.

    Returns:
        one mean for every context.

    Raises:
        ValueError: a context out of its range, held-out text that is too short.
    """
    device = next(model.parameters()).device
    text = corpus("held-out", device)
    if 2 * longest + scored > len(text):
        raise ValueError(f"scored: expected at most {len(text)} - 2 longest, of the held-out text; got {scored}")
    losses = []
    for context in contexts:
        if not 1 <= context <= longest or scored % context:
            raise ValueError(f"contexts: expected 1 to {longest} dividing {scored}; got {context}")
        starts = torch.arange(2 * longest, 2 * longest + scored, context, device=device) - context - 1
        windows = text[starts[:, None] + torch.arange(2 * context + 1, device=device)].long()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            losses.append(_mean_loss(model, windows, context))
    return losses


def _mean_loss(model: LanguageModel, windows: Tensor, context: int) -> float:
    """Mean loss of the last `context` bytes of every window, (W, 2 context + 1)."""
    total = torch.zeros((), dtype=torch.float64, device=windows.device)
    for rows in windows.split(max(1, TOKENS_AT_ONCE[windows.device.type] // (2 * context))):
        x = _hidden(model, rows[:, :-1])[:, context:]
        logits = model.head(x).float()
        targets = rows[:, context + 1 :].flatten()
        total += F.cross_entropy(logits.flatten(0, 1), targets, reduction="sum")
    return total.item() / (len(windows) * context)


def _hidden(model: LanguageModel, ids: Tensor) -> Tensor:
    windowed = any("window" in block for block in model.config.blocks.values())
    parts, cache = [], None
    for piece in ids.split(PIECE if windowed else ids.shape[1], dim=1):
        x, cache = model.hidden(piece, cache)
        parts.append(x)
    return torch.cat(parts, dim=1)
