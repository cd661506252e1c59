"""What the runs behind `byte_language_model` and `length_generalisation` are: sizes, rates, seeds, lengths."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from experiments import byte_models
from experiments.byte_models import MIXERS, Size
from experiments.sweep import Run
from ssm_kit.lab import ByteText, Settings

SEARCH_SEED = 0
"""Of the runs that choose the finalists; not among those reported."""


@dataclass(frozen=True)
class Design:
    """Everything that the runs depend on."""

    size: Size
    length: int
    steps: int
    batch_size: int
    precision: str
    learning_rates: tuple[float, ...]
    finalists: int
    """Of every mixer this many rates, those with the lowest losses in the search, are trained in full length."""
    seeds: tuple[int, ...]
    contexts: tuple[int, ...]
    """See `loss_by_context`; the one that is half the length is used during training."""
    scored: int

    def search(self) -> list[Run]:
        """Every mixer at every learning rate. Neighbours differ in their mixer: processes then compile side by side."""
        pairs = [(mixer, rate) for rate in self.learning_rates for mixer in MIXERS]
        return [self._run("search", mixer, rate, SEARCH_SEED) for mixer, rate in pairs]

    def final(self, rates: dict[str, float]) -> list[Run]:
        """Every mixer at one learning rate of its own, with every seed."""
        return [self._run("final", mixer, rates[mixer], seed) for seed in self.seeds for mixer in MIXERS]

    def _run(self, stage: str, mixer: str, learning_rate: float, seed: int) -> Run:
        steps = self.steps if stage == "final" else self.steps // 2
        settings = Settings(
            steps=steps,
            batch_size=self.batch_size,
            learning_rate=learning_rate,
            warmup=steps // 10,
            precision=self.precision,
            seed=seed,
        )
        asked = {"contexts": list(self.contexts), "scored": self.scored}
        labels = {"stage": stage, "mixer": mixer, **asked}
        return Run(labels, byte_models.config(mixer, self.size), ByteText(length=self.length), settings)


FULL = Design(
    size=Size(d_model=384, layers=8, head_dim=64, d_state=128, window=128, d_ff=1024),
    length=512,
    steps=600,  # 9.8 million bytes, a little less than the text has
    batch_size=32,
    precision="bf16",
    learning_rates=(2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3),
    finalists=2,
    seeds=(1, 2, 3),
    contexts=tuple(2**k for k in range(5, 16)),
    scored=2**17,
)
SMOKE = Design(
    size=Size(d_model=32, layers=2, head_dim=16, d_state=16, window=8, d_ff=88),
    length=32,
    steps=12,
    batch_size=8,
    precision="fp32",
    learning_rates=(1e-2, 2e-2, 3e-2),
    finalists=2,
    seeds=(1, 2),
    contexts=(8, 16, 32, 64),
    scored=2**9,
)


def finalists(rows: Iterable[dict[str, Any]], places: int) -> list[dict[str, float]]:
    """The best learning rate of every mixer by the held-out losses of its search, then the second of every mixer, ...

    Args:
        rows: of the search, as `experiments.byte_runs.facts` gives them; a loss that was no number is None.
        places: how many rates of every mixer.
    """
    order = {mixer: sorted(losses, key=losses.__getitem__) for mixer, losses in _losses(rows).items()}
    return [{mixer: rates[place] for mixer, rates in order.items()} for place in range(places)]


def chosen(rows: Iterable[dict[str, Any]]) -> dict[str, float]:
    """For every mixer the learning rate that counts: the finalist with the lowest held-out loss, a mean over seeds.

    Args:
        rows: of the finalists, as `experiments.byte_runs.facts` gives them; a loss that was no number is None.
    """
    return finalists(rows, 1)[0]


def _losses(rows: Iterable[dict[str, Any]]) -> dict[str, dict[float, float]]:
    """For every mixer and learning rate the held-out loss at the end, a mean over seeds."""
    ends: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        loss = row["held_out"][-1][1]
        ends[row["mixer"]][row["learning_rate"]].append(math.inf if loss is None else loss)
    return {
        mixer: {rate: statistics.fmean(losses) for rate, losses in by_rate.items()} for mixer, by_rate in ends.items()
    }
