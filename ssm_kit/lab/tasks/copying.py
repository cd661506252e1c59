"""Selective copying: remember the tokens that count, skip the noise between them."""

from dataclasses import dataclass

import torch

from ssm_kit.lab.tasks.task import Batch, Task, asked, distinct, integers, require


@dataclass(frozen=True)
class SelectiveCopying(Task):
    """Tokens at random places in noise, then as many markers: repeat the tokens in their order.

        tokens=3, length=12, vocab_size=16
        inputs   0 7 0 0 3 0 9 0 0 | 15 15 15
        targets  . . . . . . . . . |  7  3  9

    The task of Mamba (arXiv 2312.00752, §4.1 and appendix E.1), which varies the spacing of the copying task so that
    time-invariant models fail: noise is 0, the marker V - 1, tokens are any of 1 .. V - 2. Mamba's setting:
    length 4096, 16 tokens, vocabulary 16, 2 layers, 400 000 steps; its authors' program is not public, so details
    (that the markers count into the length) are ours. The defaults are small enough for a CPU.

    Raises:
        ValueError: vocab_size < 3, or tokens that do not fit: 1 <= tokens <= length / 2.
    """

    vocab_size: int = 16
    length: int = 64
    tokens: int = 8

    def __post_init__(self) -> None:
        require(self.vocab_size >= 3, "vocab_size", "at least 3: noise, marker and a token", self.vocab_size)
        fits = 1 <= self.tokens <= self.length // 2
        require(fits, "tokens", f"1 to length / 2 = {self.length // 2}", self.tokens)

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """Draw `size` examples; all sets of places are equally likely."""
        context = self.length - self.tokens
        places = (
            distinct(size, self.tokens, torch.ones(context, device=generator.device), generator).sort(dim=1).values
        )  # (B, K)
        tokens = integers(1, self.vocab_size - 1, (size, self.tokens), generator)  # (B, K)
        inputs = torch.zeros(size, self.length, dtype=torch.int64, device=generator.device)
        inputs.scatter_(1, places, tokens)
        inputs[:, context:] = self.vocab_size - 1
        answers = torch.arange(context, self.length, device=generator.device).expand(size, -1)
        return asked(inputs, answers, tokens)
