"""A needle in a haystack: one sentence of fact inside real text, asked for at the end."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ssm_kit.lab.tasks.task import Batch, Task, integers, require
from ssm_kit.lab.tasks.text import PARTS, windows

FACT = "\n# The number of {name} is {digits}.\n"
QUESTION = "\n# The number of {name} is {digits}"
NAME, DIGITS = 3, 4


@dataclass(frozen=True)
class Needle(Task):
    r"""Source text with one line of fact in it, and a last line that begins to repeat it: name the four digits.

        inputs   ...def walk(...):\n# The number of abc is 5071.\n    for ...\n# The number of abc is 507
        targets                                                                                    5071

    Bytes of Python's standard library are the haystack, as essays are in RULER's single needle with a number for a
    value (arXiv 2404.06654, S-NIAH-2); the name has three random letters. The last line shows each digit after it was
    asked for, as a model that writes would see it.

    Args:
        depth: where the fact lies, 0 at the start of the text, 1 at its end; None for anywhere.
        part: of the text, as in `ByteText`.

    Raises:
        ValueError: a vocabulary other than 256, a depth outside [0, 1], an unknown part, a length below 64.
    """

    vocab_size: int = 256
    length: int = 256
    depth: float | None = None
    part: str = "train"

    def __post_init__(self) -> None:
        require(self.vocab_size == 256, "vocab_size", "256, the bytes", self.vocab_size)
        require(self.length >= 64, "length", "at least 64, room for fact and question", self.length)
        require(self.depth is None or 0 <= self.depth <= 1, "depth", "None or a number from 0 to 1", self.depth)
        require(self.part in PARTS, "part", " or ".join(PARTS), self.part)

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """Draw `size` examples; the mask covers the four digits."""
        name = integers(ord("a"), ord("z") + 1, (size, NAME), generator)
        digits = integers(ord("0"), ord("9") + 1, (size, DIGITS), generator)
        fact, question = _fill(FACT, name, digits), _fill(QUESTION, name, digits)
        hay = windows(self.part, size, self.length + 1 - fact.shape[1] - question.shape[1], generator)
        text = torch.cat([_insert(hay, fact, self._places(hay, generator)), question], dim=1)  # (B, L + 1)
        mask = torch.zeros(size, self.length, dtype=torch.bool, device=generator.device)
        mask[:, -DIGITS:] = True
        return Batch(text[:, :-1], text[:, 1:] * mask, mask)

    def _places(self, hay: Tensor, generator: torch.Generator) -> Tensor:
        size, length = hay.shape
        if self.depth is None:
            return integers(0, length + 1, (size, 1), generator)
        return torch.full((size, 1), round(self.depth * length), device=generator.device)


def _fill(template: str, name: Tensor, digits: Tensor) -> Tensor:
    """The template's bytes for every row, (B, characters) int64."""
    blank = template.format(name="\0" * NAME, digits="\1" * DIGITS).encode()
    text = torch.tensor(list(blank), device=name.device).repeat(len(name), 1)
    for filler, content in ((b"\0", name), (b"\1", digits)):
        start = blank.index(filler)
        text[:, start : start + content.shape[1]] = content
    return text


def _insert(hay: Tensor, fact: Tensor, places: Tensor) -> Tensor:
    """Every row of `fact` (B, F) inside its row of `hay` (B, T), from its place (B, 1) on: (B, T + F)."""
    (_, straw), (_, facts) = hay.shape, fact.shape
    position = torch.arange(straw + facts, device=hay.device) - places  # (B, T + F), counted from the fact's first byte
    inside = (position >= 0) & (position < facts)
    source = position + places - facts * (position >= facts)
    text = hay.gather(1, source.clamp(max=straw - 1))
    return torch.where(inside, fact.gather(1, position.clamp(0, facts - 1)), text)
