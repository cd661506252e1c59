"""What is measured: one operator at one size, and the implementations that compute it."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Contender:
    """One implementation.

    name      as printed; the first contender of a case is ours, and the others are printed as multiples of it
    run       the operator: keyword tensors -> output, differentiable
    repeats   timed runs; the slow ones get few
    needs     a module that must be installed, or the contender is left out
    lengths   the only lengths it is run at; None for all of the case
    """

    name: str
    run: Callable[..., Tensor]
    repeats: int = 9
    needs: str | None = None
    lengths: tuple[int, ...] | None = None

    @property
    def installed(self) -> bool:
        return self.needs is None or importlib.util.find_spec(self.needs) is not None

    def takes_part(self, length: int) -> bool:
        return self.installed and (self.lengths is None or length in self.lengths)


@dataclass(frozen=True)
class Case:
    """An operator at one size, for several lengths.

    operator     the public function
    size         what is printed about the shapes
    make         length -> tensors; all of them get gradients
    contenders   ours first
    lengths      where all contenders are compared
    growth       lengths over which the first contender's time and memory are fitted as L to a power; empty for no fit
    """

    operator: str
    size: str
    make: Callable[[int], Tensors]
    contenders: tuple[Contender, ...]
    lengths: tuple[int, ...] = ()
    growth: tuple[int, ...] = ()
