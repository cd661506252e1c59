"""Multi-query associative recall: many pairs to remember, each asked for once."""

from dataclasses import dataclass

import torch

from ssm_kit.lab.tasks.task import Batch, Task, asked, distinct, integers, require


@dataclass(frozen=True)
class MQAR(Task):
    """Key-value pairs, then their keys again at random places: name the value of each.

        pairs=2, length=16, random_filler=False, vocab_size=12
        inputs   2 8 4 7 | 0 0 4 0 0 0 0 0 0 0 2 0
        targets  . . . . | . . 7 . . . . . . . 8 .

    The construction is that of Zoology (Arora and others, arXiv 2312.04927, §4 and `zoology/data/multiquery_ar.py`):
    keys are different tokens of 1 .. V/2 - 1, values different tokens of V/2 .. V - 1; keys are asked at even
    distances behind the pairs, at slot g = 1, 2, ... with weight g^(power - 1), no slot twice; all other places hold
    0, or with `random_filler` any token of the vocabulary, keys and values included.

    Published settings: Zoology's Figure 2 takes V = 8192, power 0.01, no random filler, (length, pairs) = (64, 4),
    (128, 8), (256, 16) and (512, 64), 100 000 fixed training examples for up to 64 epochs. Based (arXiv 2402.18668,
    Figure 2) takes random filler and trains on a mixture of 4 to 64 pairs. Here examples are fresh, never repeated,
    and the small default is ours: it is what two CPU cores learn in a minute. Zoology's program also refuses
    V <= length, which its construction does not need.

    Raises:
        ValueError: an odd length or vocabulary, more pairs than keys, or than fit: 4 · pairs <= length.
    """

    vocab_size: int = 64
    length: int = 64
    pairs: int = 8
    power: float = 0.01
    random_filler: bool = True

    def __post_init__(self) -> None:
        require(self.length % 2 == 0, "length", "an even number", self.length)
        require(self.vocab_size % 2 == 0, "vocab_size", "an even number", self.vocab_size)
        require(self.pairs >= 1, "pairs", "at least 1", self.pairs)
        require(self.pairs < self.vocab_size // 2, "pairs", f"less than {self.vocab_size // 2} keys", self.pairs)
        require(4 * self.pairs <= self.length, "pairs", f"at most length / 4 = {self.length // 4}", self.pairs)
        require(self.power > 0, "power", "a number > 0", self.power)

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """Draw `size` examples; every one asks for all its pairs."""
        half, context, device = self.vocab_size // 2, 2 * self.pairs, generator.device
        keys = 1 + distinct(size, self.pairs, torch.ones(half - 1, device=device), generator)  # (B, K)
        values = half + distinct(size, self.pairs, torch.ones(half, device=device), generator)  # (B, K)
        places = torch.arange(1, (self.length - context) // 2 + 1, dtype=torch.float64, device=device)
        positions = context + 2 * distinct(size, self.pairs, places ** (self.power - 1), generator)  # (B, K)
        if self.random_filler:
            inputs = integers(0, self.vocab_size, (size, self.length), generator)
        else:
            inputs = torch.zeros(size, self.length, dtype=torch.int64, device=device)
        inputs[:, :context] = torch.stack([keys, values], dim=2).flatten(1)
        inputs.scatter_(1, positions, keys)
        return asked(inputs, positions, values)
