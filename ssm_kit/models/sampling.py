"""How the next token is chosen from its logits."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """temperature, then top-k, then top-p, then a draw; at temperature 0 the likeliest token and no draw.

    Args:
        temperature: logits are divided by it; 0 for greedy choice.
        top_k: only the k likeliest tokens can be drawn (arXiv 1805.04833).
        top_p: only the fewest likeliest tokens whose probabilities reach p together (arXiv 1904.09751).
        generator: source of randomness on the logits' device; None for torch's global one.

    Raises:
        ValueError: temperature < 0, top_k < 1, top_p outside (0, 1], or one of these two without a temperature.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise ValueError(f"temperature must be a number >= 0; got {self.temperature!r}")
        if self.top_k is not None and (not isinstance(self.top_k, int) or self.top_k < 1):
            raise ValueError(f"top_k must be a whole number >= 1, or None; got {self.top_k!r}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, or None; got {self.top_p!r}")
        if self.temperature == 0 and not (self.top_k is None and self.top_p is None and self.generator is None):
            raise ValueError("temperature must be > 0 for top_k, top_p or generator to matter; got 0")

    def choose(self, logits: Tensor) -> Tensor:
        """One token per row: logits (B, vocab_size) -> ids (B,) int64."""
        if self.temperature == 0:
            return logits.argmax(dim=-1)
        return torch.multinomial(self.probabilities(logits), 1, generator=self.generator)[:, 0]

    def probabilities(self, logits: Tensor) -> Tensor:
        """The distribution that `choose` draws from at temperature > 0: (B, vocab_size), float32 or wider."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / self.temperature
        if self.top_k is not None:
            logits = _keep(logits, logits.topk(min(self.top_k, logits.shape[-1])).indices)
        probabilities = logits.softmax(dim=-1)
        if self.top_p is None:
            return probabilities
        sorted_, order = probabilities.sort(dim=-1, descending=True, stable=True)
        before = sorted_.cumsum(dim=-1) - sorted_  # probability of all likelier tokens: 0 for the first, always kept
        sorted_ = sorted_.masked_fill(before >= self.top_p, 0)
        kept = torch.zeros_like(probabilities).scatter(-1, order, sorted_)
        return kept / kept.sum(dim=-1, keepdim=True)


def _keep(logits: Tensor, indices: Tensor) -> Tensor:
    """All logits but those at the indices are -inf. A threshold instead would let ties through."""
    return torch.full_like(logits, -math.inf).scatter(-1, indices, logits.gather(-1, indices))
