"""Exercises of chapter 0, Sequences without attention."""

from typing import Any

import numpy as np

from ssm_kit.exercises.exercise import BreakIt, Case, Code, Number, Slip

cache_bytes = Number(
    id="0.1",
    title="A cache of small numbers",
    text="""
    A model has 26 attention layers. Each has 16 query heads that share 4 key–value heads; every head has dimension 256.
    Keys and values are kept in fp8, one byte per number. How many **bytes** does its KV cache hold for one sequence of
    40,000 tokens? Do it on paper first; the answer is an exact whole number.
    """,
    variable="kv_cache_bytes",
    working="2 * 26 * 4 * 256 * 40_000 * 1",
    factors="K and V, layers, KV heads, head dimension, tokens, bytes per number",
    unit="bytes",
    within=0.5,
    slips=(
        Slip(1_064_960_000, "Half of it. A layer keeps two tensors for a token."),
        Slip(4_259_840_000, "Twice as much, as if a number took two bytes. How many bytes is fp8?"),
        Slip(17_039_360_000, "That is the size in bits. The question asks for bytes."),
        Slip(8_519_680_000, "Four times as much: only the key–value heads are stored, not the query heads."),
        Slip(81_920_000, "That is one layer. Every layer has a cache of its own."),
        Slip(1.98, "That is the size in GiB. Give it in bytes."),
        Slip(2.13, "That is the size in GB. Give it in bytes."),
        Slip(53_248, "That is the cost of one token. The sequence has 40,000 of them."),
    ),
    hint="One number per tensor, layer, key–value head, head dimension and token; then the bytes of one number.",
    insight="About 2 GiB. In bf16 and with a key–value head for every query head it would be eight times as much.",
)


def running_average(x):
    """The average of all tokens so far, after every token, in one pass.

    x: shape (L, d). Returns h: shape (L, d), where h_t is the average of x_0
    ... x_t. The loop carries one vector of shape (d,) and the number of
    tokens so far.
    """
    averages, h = np.zeros_like(x), np.zeros(x.shape[1])  # (L, d), (d,)
    for t in range(len(x)):
        h = t / (t + 1) * h + 1 / (t + 1) * x[t]
        averages[t] = h
    return averages


def _average(keep: Any, write: Any) -> Any:
    """A running summary with other coefficients."""

    def summary(x):
        averages, h = [], 0 * x[0]
        for t, token in enumerate(x):
            h = keep(t) * h + write(t) * token
            averages.append(h)
        return np.stack(averages)

    return summary


def _average_cases() -> list[Case]:
    rng = np.random.default_rng(3)
    return [
        Case("random", (rng.normal(size=(6, 2)),)),
        Case("one token", (rng.normal(size=(1, 3)),)),
        Case("a long sequence far from zero", (100 + rng.normal(size=(3000, 2)),)),
    ]


average = Code(
    id="0.2",
    title="A summary that never fades",
    text=r"""
    The running summary $h_t = a\, h_{t-1} + (1 - a)\, x_t$ forgets the far past. Choose the factor anew at every step,
    $h_t = a_t\, h_{t-1} + (1 - a_t)\, x_t$, so that all tokens so far weigh the same: $h_t$ is the **average** of
    $x_0, \dots, x_t$. Return all the $h_t$ as an array of shape $(L, d)$, in one pass.
    """,
    reference=running_average,
    cases=_average_cases,
    slips=(
        Slip(_average(lambda t: 0.9, lambda t: 0.1), "The factor is the same at every step, so old tokens fade."),
        Slip(_average(lambda t: t / (t + 1), lambda t: 1), "The new token is added whole. What is its share?"),
        Slip(
            _average(lambda t: (t + 1) / (t + 2), lambda t: 1 / (t + 2)),
            "Count again: x_0 is one token, so h_0 = x_0. At step t there are t + 1 tokens.",
        ),
        Slip(lambda x: running_average(x)[-1], "That is the last average. Return all L of them, shape (L, d)."),
        Slip(lambda x: np.cumsum(x, 0), "That is the sum so far. An average also divides by the number of tokens."),
    ),
    hint="After t + 1 tokens each weighs 1/(t + 1). What must the old average be multiplied by, so that this holds?",
    insight="The factor is now a function of time, t/(t + 1). Chapter 3 meets it again: the 1/t of HiPPO, which lets a "
    "state remember its whole past evenly.",
)


def attend_in_one_pass(q, k, v):
    """What one query reads, with every key and value used once, in order, and
    then forgotten.

    q: shape (d,). k: shape (L, d). v: shape (L, e). Returns y: shape (e,), y
    = sum over s of w_s v_s, where w = softmax over s of (q · k_s) / sqrt(d).
    """
    largest, total, mix = -np.inf, 0.0, np.zeros(v.shape[1])  # the largest score so far, sum of weights, (e,)
    for k_s, v_s in zip(k, v, strict=True):
        score = q @ k_s / np.sqrt(len(q))
        new_largest = max(largest, score)
        fade, weight = np.exp(largest - new_largest), np.exp(score - new_largest)  # neither can overflow
        total, mix, largest = fade * total + weight, fade * mix + weight * v_s, new_largest
    return mix / total


def _one_pass(scale: bool = True, shift: bool = True, fade_total: bool = True, fade_mix: bool = True) -> Any:
    """The one-pass attention with one step left out."""

    def attend(q, k, v):
        largest, total, mix = (-np.inf if shift else 0.0), 0.0, np.zeros(v.shape[1])
        for k_s, v_s in zip(k, v, strict=True):
            score = q @ k_s / (np.sqrt(len(q)) if scale else 1)
            new_largest = max(largest, score) if shift else 0.0
            fade, weight = np.exp(largest - new_largest), np.exp(score - new_largest)
            total = (fade if fade_total else 1) * total + weight
            mix = (fade if fade_mix else 1) * mix + weight * v_s
            largest = new_largest
        return mix / total

    return attend


def _one_pass_cases() -> list[Case]:
    cases = []
    for seed, (length, d, e) in enumerate([(5, 3, 2), (1, 4, 4), (2, 1, 3), (40, 8, 8)]):
        rng = np.random.default_rng(seed)
        cases.append(Case(f"random, L = {length}", tuple(rng.normal(size=n) for n in (d, (length, d), (length, e)))))
    q, k, v = cases[0].arguments
    rising = k[np.argsort(k @ q)]
    return [*cases, Case("scores in the thousands, rising", (300 * q, 30 * rising, v))]


one_pass = Code(
    id="0.3",
    title="One query, one pass",
    text=r"""
    A single query $q$ of shape $(d,)$ reads $L$ keys and values,

    $$
    y = \sum_{s} w_s\, v_s, \qquad w_s = \frac{\exp(q \cdot k_s / \sqrt d)}{\sum_{r} \exp(q \cdot k_r / \sqrt d)} .
    $$

    Compute $y$ in **one pass**: take the pairs $(k_s, v_s)$ in order, use each one once, and keep only a state whose
    size does not depend on $L$. Scores may be in the thousands, where $e^{\text{score}}$ is infinite; so one number in
    your state must be the largest score so far.
    """,
    reference=attend_in_one_pass,
    cases=_one_pass_cases,
    slips=(
        Slip(_one_pass(scale=False), "The scores are not scaled. What does the formula divide q · k by?"),
        Slip(
            _one_pass(shift=False),
            "exp overflows for large scores. Softmax does not change if you subtract the largest score from all.",
        ),
        Slip(
            _one_pass(fade_total=False, fade_mix=False),
            "A new largest score makes all earlier weights too large. By which factor must the two sums fade?",
        ),
        Slip(_one_pass(fade_mix=False), "The sum of weights fades when a new largest score comes. So must the mix."),
        Slip(_one_pass(fade_total=False), "The mix fades when a new largest score comes. So must the sum of weights."),
        Slip(lambda q, k, v: v.mean(0), "All values have the same weight here. The scores must decide."),
    ),
    hint="Three things in the state: the largest score m, the sum of exp(score - m), the sum of exp(score - m) v.",
    insight="For one fixed query softmax attention is a recurrence, with a state of two numbers and a vector. What "
    "costs is that the next query must read all keys again.",
)


def break_even(layers, kv_heads, head_dim, state_bytes, bytes_per_number):
    """The smallest number of tokens whose KV cache takes more bytes than a
    fixed recurrent state.

    All arguments are whole numbers; `state_bytes` is the state of the whole
    recurrent model. Returns an int.
    """
    bytes_per_token = 2 * layers * kv_heads * head_dim * bytes_per_number
    return state_bytes // bytes_per_token + 1  # one more than what still fits


def _break_even_cases() -> list[Case]:
    return [
        Case("a state between two tokens", (3, 2, 16, 5000, 4)),
        Case("Mamba-2 2.7B, 80 MiB, against a cache in the shape of Llama 3 8B", (32, 8, 128, 80 * 2**20, 2)),
        Case("no state at all", (1, 1, 1, 0, 2)),
        Case("fp32 and one key–value head", (26, 1, 256, 10_000_000, 4)),
        Case("a very large state", (2, 1, 3, 10**15 + 1, 1)),
    ]


crossover = Code(
    id="0.4",
    title="Where the cache overtakes the state",
    text=r"""
    A recurrent model holds `state_bytes` bytes, however long the text. A Transformer's KV cache grows with every token.
    Write the function that returns the **smallest whole number of tokens** for which the cache takes *more* bytes than
    the state. Where both take exactly the same, the cache has not yet overtaken. Count keys and values, in every layer.
    """,
    reference=break_even,
    cases=_break_even_cases,
    tolerance=0.0,
    slips=(
        Slip(
            lambda n, h, d, s, b: -(-s // (2 * n * h * d * b)),
            "At that length the two are equal, or there is no token yet. The cache must hold strictly more.",
        ),
        Slip(
            lambda n, h, d, s, b: s // (2 * n * h * d * b),
            "With that many tokens the state still holds at least as much.",
        ),
        Slip(lambda n, h, d, s, b: s / (2 * n * h * d * b), "Tokens come whole: return the next int with more bytes."),
        Slip(lambda n, h, d, s, b: s // (n * h * d * b) + 1, "Keys *and* values are stored: two tensors per layer."),
        Slip(lambda n, h, d, s, b: s // (2 * n * h * d) + 1, "Numbers are not bytes: use bytes_per_number."),
        Slip(lambda n, h, d, s, b: s // (2 * h * d * b) + 1, "Every layer has a cache of its own."),
    ),
    hint="How many bytes does one token add to the cache? How many whole tokens fit into the state's bytes?",
    insight="For the real pair (80 MiB against 128 KiB a token) it is 641 tokens: in short texts the recurrent model "
    "holds more.",
)


def same_summary(a):
    """Two different sequences that leave the same running summary.

    a: number with 0 < a < 1. Returns (x, z), each of shape (L,) with the same
    L of your choice, that differ somewhere by at least 0.1, and whose last
    summaries are equal to 1e-9:
    h_t = a h_(t-1) + (1 - a) x_t, from h = 0 before the first token.
    """
    x = np.array([1.0, 0.0])  # the 1 fades to a at the next step
    z = np.array([0.0, a])  # a is written directly
    return x, z


def _last_summary(x: np.ndarray, a: float) -> float:
    return float(sum((1 - a) * a**age * token for age, token in enumerate(x[::-1])))


def _recall(x: np.ndarray) -> np.ndarray:
    """What the last token reads from each position, by attention whose keys are one-hot positions. Returns (L,)."""
    length = len(x)
    keys = np.eye(length)
    # A score of 50 for the position asked for: all other weights are below e^-49.
    return np.array([attend_in_one_pass(50 * np.sqrt(length) * key, keys, x[:, None])[0] for key in keys])


def _same_summary_problem(arguments: tuple, pair: Any) -> str:
    (a,) = arguments
    if not isinstance(pair, tuple) or len(pair) != 2:
        return "return two sequences, as x, z"
    x, z = (np.asarray(sequence, dtype=float) for sequence in pair)
    if x.ndim != 1 or x.shape != z.shape or not 0 < len(x) <= 64:
        return f"the sequences must have one shape (L,) with 1 ≤ L ≤ 64; theirs are {x.shape} and {z.shape}"
    if not (np.isfinite(x).all() and np.isfinite(z).all()):
        return "the sequences must be finite"
    gap = np.abs(_recall(x) - _recall(z)).max()
    if gap < 0.1 - 1e-9:
        return f"what attention reads from the two differs by {gap:.3g} at most; 0.1 is asked for"
    first, second = _last_summary(x, a), _last_summary(z, a)
    if abs(first - second) > 1e-9:
        return f"the last summaries are {first:.6g} and {second:.6g}: the summary tells the two apart"
    return ""


forget = BreakIt(
    id="0.5",
    title="Two pasts, one summary",
    text=r"""
    Take the running summary $h_t = a\, h_{t-1} + (1 - a)\, x_t$ of numbers, from $h_{-1} = 0$. Show that it loses
    information: for any given $a$ with $0 < a < 1$, return two sequences of the same length that differ somewhere by at
    least 0.1 and still leave the same last summary $h_{L-1}$, to $10^{-9}$. The check lets attention, with one key per
    position, look at both: it must find the difference.
    """,
    reference=same_summary,
    cases=lambda: [Case("one of several decays", (a,)) for a in (0.5, 0.9, 0.1, 0.99, 0.731)],
    verify=_same_summary_problem,
    hint="Take length 2 and write the summary out: (1 - a)(a x_0 + x_1). Which other pair gives the same bracket?",
    insight="After the last token no reader of the summary can know which of the two pasts was real; attention, which "
    "kept both tokens, can.",
)

EXERCISES = (cache_bytes, average, one_pass, crossover, forget)
