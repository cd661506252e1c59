"""What the runs behind `byte_language_model` and `length_generalisation` are: sizes, rates, seeds, lengths."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from experiments import byte_models
from experiments.byte_models import MIXERS, Size
from experiments.sweep import Run
from ssm_kit.lab import ByteText, Settings

SEARCH_SEED = 0
"""Of the runs that choose the learning rates; not among those reported, so that the choice cannot flatter."""


@dataclass(frozen=True)
class Design:
    """Everything that the runs depend on."""

    size: Size
    length: int
    steps: int
    batch_size: int
    precision: str
    learning_rates: tuple[float, ...]
    seeds: tuple[int, ...]
    contexts: tuple[int, ...]
    """See `loss_by_context`; the one that is half the length is used during training."""
    scored: int

    def search(self) -> list[Run]:
        """Every mixer at every learning rate. Neighbours differ in their mixer: processes then compile side by side."""
        pairs = [(mixer, rate) for rate in self.learning_rates for mixer in MIXERS]
        return [self._run("search", mixer, rate, SEARCH_SEED) for mixer, rate in pairs]

    def final(self, rates: dict[str, float]) -> list[Run]:
        """Every mixer at its own learning rate, with every seed."""
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
    learning_rates=(1e-2, 2e-2),
    seeds=(1, 2),
    contexts=(8, 16, 32, 64),
    scored=2**9,
)


def chosen(rows: Iterable[dict[str, Any]]) -> dict[str, float]:
    """For every mixer the learning rate of the search that ended with the lowest held-out loss.

    Args:
        rows: of runs, as `experiments.byte_runs.facts` gives them; a loss that was no number is None.
    """
    best: dict[str, tuple[float, float]] = {}
    for row in rows:
        if row["stage"] == "search":
            loss = row["held_out"][-1][1]
            found = (math.inf if loss is None else loss, row["learning_rate"])
            best[row["mixer"]] = min(found, best.get(row["mixer"], found))
    return {mixer: rate for mixer, (_, rate) in best.items()}
