"""Associative recall against the size of the state: which mixers hold how many pairs in how many bytes.

    python -m experiments.recall_capacity --smoke       (CPU)        the full size: see `experiments.study`

Multi-query associative recall (Zoology, arXiv 2312.04927, §4): key-value pairs, then every key again, each of which
asks for its value. One model is trained on 4, 8, ... 128 pairs in turn, a batch each, and tested on every number.

As in Zoology's Figure 2: two layers, keys asked again at distances that follow a power law, zeros between. As in
Based (arXiv 2402.18668, Figure 2): one model for all numbers of pairs. Different here: 512 tokens instead of 8192, one
length of 512, fresh examples instead of 100 000 repeated ones, and d_model 64 throughout.

Mixers differ in parameters; every row says how many. A control trains the largest size of each once more, as wide as
brings all of them to one number of parameters within 6 % (their states grow with it).

The other mixers have a short convolution, by which a value learns which key came before it. Attention and linear
attention have none: as in Based, a window of four tokens goes first, and attention has eight heads, twice as wide
together as the stream. On 4 to 32 pairs of 128 tokens of 128 kinds (CPU, float32, 1000 to 1500 steps of 32 examples at
0.003) eight heads of 16 behind a window of two or four learned to answer in all of six runs, two heads of 32 in one of
six, and eight heads without the window not at all: they knew which values occur and no more.

What is measured is what was learned in 3000 steps, no bound on what could be held. Seeds of Mamba and of linear
attention with elu + 1 end far apart, some at one in n, and Mamba with N = 64 below N = 16: those are failures to learn.
In linear attention the feature map decides: of 128 pairs, with keys of 16, 32 and 64 numbers, elu + 1 answered 0.03,
0.02 and 0.01, Hedgehog's softmax 0.69, 0.99 and 1.00, more for its bytes of state than anything else here.

Only the window has rotary positions. The attention that looks keys up has none: what it compares must not depend on how
far apart they stand. With rotary positions there too, and 16 dimensions a head, one of six runs at the full size (rates
0.003 and 0.005) answered everything, five got 0.21 to 0.58 of 128 pairs; without, all of nine (0.01 too) got 1.00.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments.small_models import Mixer, stack, widened
from experiments.study import Study, accuracy, main
from experiments.sweep import Run
from ssm_kit.lab import MQAR, Batch, Settings

D_MODEL, VOCABULARY, LENGTH = 64, 512, 512
PARAMETERS = 160_000
"""Of the models for control: as many as the largest mixers have by themselves."""
PAIRS = (4, 8, 16, 32, 64, 128)
SETTINGS = Settings(steps=3000, batch_size=32, warmup=300, final=0.01, precision="bf16")
NO_DECAY = (1e-12, 2e-12)
"""Decay rates so small that every decay is 1 in float32 and AdamW, whose ε is larger, cannot move them."""


@dataclass(frozen=True)
class MixedMQAR(MQAR):
    """MQAR with another number of pairs in every batch, in turn; `pairs` is the largest of them."""

    counts: tuple[int, ...] = (4, 8)

    def batch(self, size: int, *, seed: int, index: int, device="cpu") -> Batch:
        """As `Task.batch`."""
        pairs = self.counts[index % len(self.counts)]
        task = MQAR(self.vocab_size, self.length, pairs, self.power, self.random_filler)
        return task.batch(size, seed=seed, index=index, device=device)


def s4d(states: int) -> Mixer:
    return {"layer": "S4D", "d_state": states}


def mamba(states: int) -> Mixer:
    return {"layer": "Mamba", "d_state": states}


def mamba2(states: int) -> Mixer:
    return {"layer": "Mamba2", "d_state": states, "headdim": 64}


def gated_deltanet(keys: int) -> Mixer:
    return {"layer": "GatedDeltaNet", "num_k_heads": 2, "num_v_heads": 2, "head_k_dim": keys, "head_v_dim": 64}


def delta_rule(keys: int) -> Mixer:
    return {**gated_deltanet(keys), "A_init_range": NO_DECAY}


def linear_attention(keys: int) -> Mixer:
    return {"layer": "LinearAttention", "num_heads": 4, "head_dim": keys}


def hedgehog(keys: int) -> Mixer:
    return {**linear_attention(keys), "feature_map": "hedgehog"}


def rg_lru(width: int) -> Mixer:
    return {"layer": "RGLRU", "lru_width": width, "num_heads": width // 16}


def attention(window: int | None = None) -> Mixer:
    """Heads of twice the width of the stream together, as wide as the other mixers are inside; no positions."""
    return {"layer": "Attention", "num_heads": 8, "head_dim": 16, "window": window}


def neighbours(window: int = 4) -> Mixer:
    """Attention to the last few tokens, with rotary positions: a layer that learns what came just before."""
    return {**attention(window), "rope": 1e4}


MODELS: dict[str, dict[int, tuple[Mixer, Mixer]]] = {
    "S4D": {n: (s4d(n), s4d(n)) for n in (8, 32, 128)},
    "window 4 + linear attention": {n: (neighbours(), linear_attention(n)) for n in (8, 16, 32, 64)},
    "window 4 + Hedgehog": {n: (neighbours(), hedgehog(n)) for n in (8, 16, 32, 64)},
    "Mamba": {n: (mamba(n), mamba(n)) for n in (4, 16, 64)},
    "Mamba-2": {n: (mamba2(n), mamba2(n)) for n in (4, 16, 64, 256)},
    "delta rule": {n: (delta_rule(n), delta_rule(n)) for n in (4, 16, 64)},
    "Gated DeltaNet": {n: (gated_deltanet(n), gated_deltanet(n)) for n in (4, 16, 64)},
    "RG-LRU": {n: (rg_lru(n), rg_lru(n)) for n in (16, 64, 256)},
    "window 4 + sliding window": {n: (neighbours(), attention(n)) for n in (9, 33, 129)},
    "window 4 + attention": {LENGTH: (neighbours(), attention())},
    "Mamba-2 + attention": {n: (mamba2(n), attention()) for n in (4, 16, 64)},
}
"""By name and size: the two mixers. The size is N, the width of keys, the RG-LRU's width, or the window."""


Models = Mapping[str, Mapping[int, Sequence[Mixer]]]


def runs(
    models: Models,
    pairs: Sequence[int],
    settings: Settings,
    *,
    d_model: int = D_MODEL,
    vocabulary: int = VOCABULARY,
    length: int = LENGTH,
    parameters: int | None = None,
) -> list[Run]:
    """One run for each architecture; filled up by width to a number of parameters, if one is given."""
    tests = {f"{n} pairs": MQAR(vocabulary, length, n, random_filler=False) for n in pairs}
    task = MixedMQAR(vocabulary, length, max(pairs), random_filler=False, counts=tuple(pairs))
    made = []
    for name, sizes in models.items():
        for size, mixers in sizes.items():
            if parameters is None:
                model = stack(mixers, vocab_size=vocabulary, d_model=d_model)
            else:
                model = widened(mixers, vocab_size=vocabulary, parameters=parameters)
            labels = {"mixer": name, "size": size, "filled": parameters is not None}
            made.append(Run(labels, model, task, settings, tests))
    return made


def largest(models: Models) -> Models:
    """Every mixer at its largest size only."""
    return {name: {max(sizes): sizes[max(sizes)]} for name, sizes in models.items()}


def full() -> Study:
    """34 architectures at three learning rates; then, with three seeds, these and 11 for control: 237 runs."""
    made = runs(MODELS, PAIRS, SETTINGS) + runs(largest(MODELS), PAIRS, SETTINGS, parameters=PARAMETERS)
    notes = {"pairs": PAIRS, "d_model": D_MODEL}
    return Study(made, (2e-3, 5e-3, 1e-2), (1, 2, 3), family=("mixer", "size"), score=accuracy, notes=notes)


def smoke() -> Study:
    """Windows of 3 and of 9 tokens and attention without one: what attention holds learns to recall in few steps."""
    one = {"num_heads": 1, "head_dim": 32}
    first, layer = {**neighbours(2), **one}, {**attention(), **one}
    models = {
        "window 2 + sliding window": {n: (first, {**layer, "window": n}) for n in (3, 9)},
        "window 2 + attention": {16: (first, layer)},
    }
    settings = Settings(steps=120, batch_size=32, warmup=12, final=0.01)
    made = runs(models, (2, 4), settings, d_model=32, vocabulary=32, length=16)
    return Study(made, (2e-2,), (1,), score=accuracy)


if __name__ == "__main__":
    main(
        "recall_capacity",
        "Accuracy of multi-query associative recall, by mixer, size of its state, and pairs",
        full,
        smoke,
    )
