"""Bytes of real text that every machine has: the source files of Python's standard library."""

import functools
import hashlib
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssm_kit.lab.tasks.task import Batch, Task, integers, require

PARTS = ("train", "held-out")
LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"}


@dataclass(frozen=True)
class ByteText(Task):
    """Windows of text, one token a byte; every position is asked for the byte that comes next.

    The text is the .py files of this Python's standard library without its tests, about 10 MB, in the order of their
    names. It differs a little between versions of Python: record `fingerprint()` beside a result. One file in
    twenty, chosen by its name, is held out.

    Args:
        part: "train" or "held-out".

    Raises:
        ValueError: a vocabulary other than 256, an unknown part, a length that the text does not reach.
    """

    vocab_size: int = 256
    length: int = 256
    part: str = "train"

    def __post_init__(self) -> None:
        require(self.vocab_size == 256, "vocab_size", "256, the bytes", self.vocab_size)
        require(self.part in PARTS, "part", " or ".join(PARTS), self.part)
        require(1 <= self.length < len(corpus(self.part)), "length", "1 to less than the text", self.length)

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """Draw `size` windows, each start equally likely."""
        text = windows(self.part, size, self.length + 1, generator)  # (B, L + 1)
        return Batch(text[:, :-1], text[:, 1:], torch.ones_like(text[:, 1:], dtype=torch.bool))

    def fingerprint(self) -> str:
        """SHA-256 of the text, in hexadecimal digits."""
        return hashlib.sha256(corpus(self.part).numpy().tobytes()).hexdigest()


def windows(part: str, size: int, length: int, generator: torch.Generator) -> Tensor:
    """Random windows of the text, (size, length) int64, on the generator's device."""
    text = corpus(part, generator.device)
    starts = integers(0, len(text) - length + 1, (size, 1), generator)
    return text[starts + torch.arange(length, device=generator.device)].long()


@functools.cache
def corpus(part: str, device: torch.device | None = None) -> Tensor:
    """The whole text of one part, (T,) uint8. Raises ValueError where Python came without its sources."""
    if device is not None:
        return corpus(part).to(device)
    texts = [file.read_bytes() for name, file in _sources() if _held_out(name) == (part == "held-out")]
    require(bool(texts), "part", "a Python with its standard library as .py files", sysconfig.get_path("stdlib"))
    return torch.from_numpy(np.frombuffer(b"".join(texts), dtype=np.uint8).copy())


def _sources() -> Iterator[tuple[str, Path]]:
    root = Path(sysconfig.get_path("stdlib"))
    for name in sorted(file.relative_to(root).as_posix() for file in root.rglob("*.py")):
        if not LEFT_OUT & set(name.split("/")):
            yield name, root / name


def _held_out(name: str) -> bool:
    return hashlib.sha256(name.encode()).digest()[0] % 20 == 0
