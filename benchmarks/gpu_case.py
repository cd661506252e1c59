"""What a row of `benchmarks.gpu` consists of.

Tensors are made in our layout, time before channels. A peer brings `arrange`, which copies them into its own (that copy
is not timed), and `restore`, which turns its output back; both are differentiable, so that gradients are compared too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Work:
    """What an operator cannot avoid: each input read and each output written once, matrix FLOPs, exponentials."""

    bytes: float
    flops: float = 0.0
    special: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.bytes + other.bytes, self.flops + other.flops, self.special + other.special)


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Contender:
    """One implementation: run(**arrange(tensors)) -> tensor or tuple, `restore` puts it into our layout."""

    name: str
    run: Callable[..., Any]
    arrange: Callable[[Tensors], Tensors] = _same
    restore: Callable[[Any], Any] = _same


@dataclass(frozen=True)
class Case:
    """One operator at one size.

    make        (small) -> tensors: of the size that is timed, or of one at which the contenders are checked
    reference   the operator by torch alone, for the check in float64
    backward    the work of the gradients; None for a decoding step, which has none
    """

    operator: str
    shape: str
    make: Callable[[bool], Tensors]
    reference: Callable[..., Any]
    contenders: tuple[Contender, ...]
    forward: Work
    backward: Work | None
    dtype: torch.dtype = torch.bfloat16

    @property
    def name(self) -> str:
        return f"{self.operator} {self.shape} {str(self.dtype).removeprefix('torch.')}"
