"""Induction heads: what came after this token the last time?"""

from dataclasses import dataclass

import torch

from ssm_kit.lab.tasks.task import Batch, Task, asked, integers, require


@dataclass(frozen=True)
class InductionHeads(Task):
    """A special token somewhere in random tokens, and again at the end: name the token that followed it.

        length=8, vocab_size=16
        inputs   4 11 15 6 2 2 9 15
        targets  .  .  . . . . .  6

    The task of Mamba (arXiv 2312.00752, §4.1 and appendix E.1): the special token is V - 1 and occurs nowhere else,
    its first place is uniform. Mamba's setting: trained at length 256, vocabulary 16, 2 layers, tested from 2^6 to
    2^20. To test another length, make another task: `replace(task, length=1024)` of `dataclasses`.

    Raises:
        ValueError: vocab_size < 2 or length < 3.
    """

    vocab_size: int = 16
    length: int = 64

    def __post_init__(self) -> None:
        require(self.vocab_size >= 2, "vocab_size", "at least 2", self.vocab_size)
        require(self.length >= 3, "length", "at least 3", self.length)

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """Draw `size` examples; each asks once, at the last position."""
        special = self.vocab_size - 1
        inputs = integers(0, special, (size, self.length), generator)
        first = integers(0, self.length - 2, (size, 1), generator)
        inputs.scatter_(1, first, special)
        inputs[:, -1] = special
        last = torch.full_like(first, self.length - 1)
        return asked(inputs, last, inputs.gather(1, first + 1))
