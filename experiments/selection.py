"""The models of `experiments.selective_copying` and `experiments.induction_heads`: with and without gate and selection.

After Mamba's Tables 1 and 2 (arXiv 2312.00752, §4.1): two layers of d_model 64, Mamba with N = 16. Here every model has
the parameters of Mamba's, within 3 %: the others have a larger N, hence more state than Mamba's 2048 numbers a layer,
and attention has eight heads twice as wide together. Which two layers of attention a task gets, its script says.

Mamba-2 has eight heads too, each with a decay of its own. With two heads of 64 it learned selective copying slowly: in
a length of 128, after 1000 steps of 16 examples at 0.003, 0.12 of the answers were right, with eight 0.45 (CPU, one
seed each).
"""

from collections.abc import Mapping, Sequence

from experiments.small_models import Mixer, stack
from experiments.sweep import Run
from ssm_kit.lab import Settings, Task

SEEDS = (1, 2, 3)
FACTORS = (1, 2, 4, 16, 64)
"""Lengths of the tests, as multiples of the length that is trained on."""
TEST_TOKENS = 2**19
"""At most this many tokens in a batch of a test, or the longest would not fit beside other runs."""


def _twice(mixer: Mixer) -> tuple[Mixer, Mixer]:
    return mixer, mixer


ROPE: Mixer = {"layer": "Attention", "num_heads": 8, "head_dim": 16, "rope": 1e4}
NOPE: Mixer = {**ROPE, "rope": None}
RECURRENT: dict[str, tuple[Mixer, Mixer]] = {
    "S4D": _twice({"layer": "S4D", "d_state": 188}),
    "gated S4D": _twice({"layer": "GatedS4D", "d_state": 28}),
    "Mamba": _twice({"layer": "Mamba", "d_state": 16}),
    "Mamba-2": _twice({"layer": "Mamba2", "d_state": 48, "headdim": 16}),
}


def runs(
    mixers: Mapping[str, Sequence[Mixer]], task: Task, tests: Mapping[str, Task], settings: Settings, d_model: int = 64
) -> list[Run]:
    """One run for each row of mixers."""
    return [
        Run({"mixer": name}, stack(row, vocab_size=task.vocab_size, d_model=d_model), task, settings, dict(tests))
        for name, row in mixers.items()
    ]
