"""How much attention a stack of Mamba-2 needs, and where: recall and the loss on text, over fraction and placement.

    python -m experiments.hybrid_fraction --smoke       (CPU)        the full size: see `experiments.study`

Sixteen mixers in a row, no MLP, of which 0, 1, 2, 4, 8 or all are attention: spread, first, in the middle, or last. An
attention block has heads so wide that it counts as many parameters as the Mamba-2 block that it replaces, within 1 %.
Two tasks: associative recall as in `experiments.recall_capacity`, and the bytes of the Python standard library's
sources, tested on files that were held out. The learning rate is chosen for every fraction with attention spread, and
the other placements take it over.

After Mamba-2's Table 2 (arXiv 2405.21060: 48 layers, 350M parameters), which counts attention layers but does not move
them. Different here: N is small; in the stack of attention alone the first layer sees four tokens only; and attention
has rotary positions for text, none for recall. `experiments.recall_capacity` says why.

What came out (three seeds): of sixteen layers, one of attention in the middle answers every question, where Mamba-2
alone answers one in twenty; as the first or the last layer it does not help. More attention does not help either: a
block of it in the middle answers 0.5 to 0.7, and half of the layers, spread, 0.9. Attention alone stays at what
guessing among the values that occur gives, at all three rates: two layers learn recall, sixteen do not in these 2000
steps, which says something of training and nothing of what they could hold. On text one layer takes 0.06 nats off
wherever it stands but first, where it does harm; the last place is as good as the middle, or a little better. So the
middle helps most for recall, where spread layers do as well, and not for text.
"""

from collections.abc import Sequence

from experiments.recall_capacity import MixedMQAR, attention, mamba2, neighbours
from experiments.small_models import EMBEDDING_SCALE, Mixer
from experiments.study import Study, main
from experiments.sweep import Run
from ssm_kit.lab import MQAR, ByteText, Settings, Task
from ssm_kit.models import ModelConfig, schedule

LAYERS = 16
COUNTS = (0, 1, 2, 4, 8, 16)
PLACEMENTS = ("spread", "first", "middle", "last")
PAIRS = (4, 8, 16, 32, 64)
RECALL = Settings(steps=2000, batch_size=32, warmup=200, final=0.01, precision="bf16")
TEXT = Settings(steps=1500, batch_size=16, warmup=150, final=0.01, precision="bf16")


def rows(layers: int, counts: Sequence[int], placements: Sequence[str]) -> dict[tuple[int, str], str]:
    """The row of mixers for every count and placement; a stack of one kind has one placement, the first."""
    found = {
        (count, placement): schedule(layers, count / layers, placement)
        for count in counts
        for placement in (placements if 0 < count < layers else placements[:1])
    }
    # Nothing in attention alone sees which token came before which: a window of four first, see `recall_capacity`.
    return {key: "w" + row[1:] if key[0] == layers else row for key, row in found.items()}


def blocks(states: int, head_dim: int, rope: float | None = None) -> dict[str, Mixer]:
    """Mamba-2 and an attention of about its size, by the letters of `rows`."""
    heads = {"num_heads": 4, "head_dim": head_dim}
    return {"M": mamba2(states), "*": {**attention(), **heads, "rope": rope}, "w": {**neighbours(), **heads}}


def runs(
    name: str, task: Task, tests: dict[str, Task], settings: Settings, d_model: int, mixers: dict[str, Mixer],
    stacks: dict[tuple[int, str], str],
) -> list[Run]:  # fmt: skip
    """One run for each stack."""
    return [
        Run(
            {"task": name, "attention": count, "layers": len(pattern), "placement": placement},
            ModelConfig(task.vocab_size, d_model, pattern, mixers, embedding_scale=EMBEDDING_SCALE),
            task,
            settings,
            tests,
        )
        for (count, placement), pattern in stacks.items()
    ]


def recall(stacks: dict[tuple[int, str], str]) -> list[Run]:
    """512 kinds of tokens in a length of 256, 4 to 64 pairs."""
    tests: dict[str, Task] = {f"{n} pairs": MQAR(512, 256, n, random_filler=False) for n in PAIRS}
    task = MixedMQAR(512, 256, PAIRS[-1], random_filler=False, counts=PAIRS)
    return runs("recall", task, tests, RECALL, 64, blocks(8, 26), stacks)


def text(stacks: dict[tuple[int, str], str]) -> list[Run]:
    """Windows of 512 bytes."""
    tests: dict[str, Task] = {"held out": ByteText(length=512, part="held-out")}
    return runs("text", ByteText(length=512), tests, TEXT, 128, blocks(24, 52, rope=1e4), stacks)


def full() -> Study:
    """18 stacks, two tasks; 6 fractions at three learning rates, then all with three seeds: 144 runs."""
    stacks = rows(LAYERS, COUNTS, PLACEMENTS)
    return Study([*recall(stacks), *text(stacks)], (1e-3, 3e-3, 1e-2), (1, 2, 3), family=("task", "attention"))


def smoke() -> Study:
    """Two mixers on recall, none or the last of them attention; and a few steps on text, which show nothing yet."""
    stacks = rows(2, (0, 1), PLACEMENTS[:1])
    task = MixedMQAR(16, 16, 4, random_filler=False, counts=(2, 4))
    tests: dict[str, Task] = {f"{n} pairs": MQAR(16, 16, n, random_filler=False) for n in task.counts}
    mixers = {"M": {**mamba2(1), "headdim": 32, "chunk_size": 16}, "*": {**attention(), "num_heads": 2, "head_dim": 24}}
    settings = Settings(steps=200, batch_size=32, warmup=20, final=0.01)
    made = runs("recall", task, tests, settings, 32, mixers, stacks)
    some: dict[str, Task] = {"held out": ByteText(length=32, part="held-out")}
    made += runs("text", ByteText(length=32), some, Settings(steps=5, batch_size=4, warmup=1), 32, mixers, stacks)
    return Study(made, (1e-2,), (1,), family=("task", "attention"))


if __name__ == "__main__":
    main(
        "hybrid_fraction", "Recall and loss on text, by number and place of attention layers among Mamba-2", full, smoke
    )
