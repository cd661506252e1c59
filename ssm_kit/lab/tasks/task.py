"""What all tasks share: batches that are a pure function of (task, seed, index)."""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """Examples and what is asked of them."""

    inputs: Tensor
    """(B, L) int64: tokens."""
    targets: Tensor
    """(B, L) int64: what the logits at each position should name; 0 where nothing is asked."""
    mask: Tensor
    """(B, L) bool: where something is asked."""

    def rows(self, rows: slice) -> "Batch":
        """Some of the examples."""
        return Batch(*(tensor[rows] for tensor in self))

    def to(self, device: torch.device | str) -> "Batch":
        """The same on another device."""
        return Batch(*(tensor.to(device) for tensor in self))


@dataclass(frozen=True)
class Task(ABC):
    """A source of examples without end; a subclass adds its settings as fields and draws in `sample`."""

    vocab_size: int
    length: int

    def batch(self, size: int, *, seed: int, index: int, device: torch.device | str = "cpu") -> Batch:
        """Batch number `index` of the stream `seed`: the same call gives the same numbers, whatever came before.

        So training can resume anywhere, several processes can share a batch, and another seed is fresh data.

        Args:
            size: B, examples.
            seed, index: any whole numbers.
            device: where to draw. Every kind of device has random numbers of its own.

        Returns:
            inputs (B, L) int64 in [0, vocab_size), targets (B, L) int64, mask (B, L) bool.

        Raises:
            ValueError: size < 1.
        """
        require(size >= 1, "size", "at least 1", size)
        digest = hashlib.sha256(f"{self.name}/{seed}/{index}".encode()).digest()
        generator = torch.Generator(device=device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        return self.sample(size, generator)

    @property
    def name(self) -> str:
        """The class, as in "MQAR": tasks of one seed do not share their random numbers."""
        return type(self).__name__

    @abstractmethod
    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """Draw `size` examples on the generator's device."""


def require(holds: bool, argument: str, expected: str, value: object) -> None:
    """Raise ValueError, naming the argument, what was expected and what came, unless it holds."""
    if not holds:
        raise ValueError(f"{argument}: expected {expected}; got {value!r}")


def integers(low: int, high: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Uniform in [low, high), int64, on the generator's device."""
    return torch.randint(low, high, shape, generator=generator, device=generator.device)


def distinct(size: int, choose: int, weights: Tensor, generator: torch.Generator) -> Tensor:
    """`choose` different indices per row, drawn one after the other with these weights, (size, choose) int64.

    The largest of weight / (exponential variable) are such a draw, in this order. torch.multinomial uses the same
    fact, but makes a GPU wait to check its arguments.
    """
    uniform = torch.rand(size, len(weights), generator=generator, device=generator.device)
    return (weights.to(uniform) / -uniform.log()).topk(choose, dim=1).indices


def asked(inputs: Tensor, positions: Tensor, answers: Tensor) -> Batch:
    """A batch that asks for `answers` (B, K) at `positions` (B, K)."""
    targets = torch.zeros_like(inputs).scatter_(1, positions, answers)
    mask = torch.zeros_like(inputs, dtype=torch.bool).scatter_(1, positions, True)
    return Batch(inputs, targets, mask)
