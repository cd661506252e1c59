"""Induction heads: what came after this token the last time, at the length trained on and at up to 64 times it.

    python -m experiments.induction_heads --smoke         (CPU)      the full size: see `experiments.study`

After Mamba's Table 2 (arXiv 2312.00752, §4.1 and appendix E.1), with the models of `experiments.selection`: trained at
length 256 with 16 kinds of tokens, as there; 5000 steps of 64 examples, and tests to 16 384 instead of 1 048 576.

Attention is the paper's MHA-RoPE, but its first layer sees four tokens only, as the short convolutions of the others
do: with two layers of full attention and two heads, induction heads had not been learned after 3000 steps of 32
examples. `experiments.recall_capacity` says what such a window does, and why there is a second row, whose full
attention has no positions.

Of the rates that answer all, the search takes the lowest. By the loss alone it once took the highest for Mamba (0.01),
at which two of three seeds learned nothing.
"""

from dataclasses import dataclass
from typing import Any

from experiments.selection import FACTORS, NOPE, RECURRENT, ROPE, SEEDS, TEST_TOKENS, runs
from experiments.study import Study, answered, main
from ssm_kit.lab import Batch, InductionHeads, Settings

LENGTH = 256
RATES = (1e-3, 3e-3, 1e-2)
WINDOW = {**ROPE, "window": 4}
MIXERS = RECURRENT | {"window 4 + RoPE attention": (WINDOW, ROPE), "window 4 + NoPE attention": (WINDOW, NOPE)}
SETTINGS = Settings(steps=5000, batch_size=64, warmup=500, final=0.01, precision="bf16")


@dataclass(frozen=True)
class LongInduction(InductionHeads):
    """Induction heads in batches of fewer examples, the longer they are."""

    def batch(self, size: int, **which: Any) -> Batch:
        """As `Task.batch`, with at most TEST_TOKENS tokens."""
        return super().batch(min(size, max(1, TEST_TOKENS // self.length)), **which)


def full() -> Study:
    """6 rows of mixers at three learning rates, then with three seeds: 36 runs."""
    task = InductionHeads(length=LENGTH)
    tests = {f"{factor * LENGTH}": LongInduction(length=factor * LENGTH) for factor in FACTORS}
    return Study(runs(MIXERS, task, tests, SETTINGS), RATES, SEEDS, score=answered, notes={"trained_on": LENGTH})


def smoke() -> Study:
    """S4D and a small Mamba-2, one layer each, at length 12."""
    task = InductionHeads(vocab_size=8, length=12)
    tests = {f"{length}": LongInduction(vocab_size=8, length=length) for length in (12, 24)}
    small = {"layer": "Mamba2", "d_state": 16, "headdim": 32, "chunk_size": 16}
    settings = Settings(steps=120, batch_size=64, warmup=12, final=0.01)
    made = runs({"S4D": MIXERS["S4D"][:1], "Mamba-2": (small,)}, task, tests, settings, d_model=32)
    return Study(made, (1e-2,), (1,), notes={"trained_on": task.length})


if __name__ == "__main__":
    main("induction_heads", "Accuracy of induction heads, by mixer and length of the test", full, smoke)
