"""Exercises of chapter 0, Sequences without attention."""

from typing import Any

import numpy as np

from ssm_kit.exercises.exercise import BreakIt, Case, Code, Number, Slip

cache_bytes = Number(
    id="0.1",
    title="The cache of an 8B model",
    text="""
    A Transformer with 8 billion parameters has 32 layers. Each layer has 32 query heads that share 8 key–value heads;
    every head has dimension 128. Keys and values are kept in bf16. How many **bytes** does its KV cache hold for one
    sequence of 131,072 tokens? Do it on paper first; the answer is an exact whole number.
    """,
    variable="kv_cache_bytes",
    working="2 * 32 * 8 * 128 * 131_072 * 2",
    factors="K and V, layers, KV heads, head dimension, tokens, bytes per number",
    unit="bytes",
    within=0.5,
    slips=(
        Slip(2**33, "Half of it. Count both tensors that a layer keeps for a token, and both bytes of a bf16 number."),
        Slip(2**32, "A quarter of it. Count both tensors of a layer, and both bytes of a bf16 number."),
        Slip(2**37, "That is the size in bits. The question asks for bytes."),
        Slip(2**35, "Twice as much, as if a number took 4 bytes. How many bytes is bf16?"),
        Slip(2**36, "Four times as much: only the key–value heads are stored, not the query heads."),
        Slip(2**29, "That is one layer. Every layer has a cache of its own."),
        Slip(16, "That is the size in GiB. Give it in bytes."),
        Slip(17.18, "That is the size in GB. Give it in bytes."),
        Slip(2**17, "That is the cost of one token. The sequence has 131,072 of them."),
    ),
    hint="One number per tensor, layer, key–value head, head dimension and token; then the bytes of one number.",
    insight="131,072 bytes for every token, 16 GiB in all: a little more than the weights of the model itself.",
)


def causal_attention(q, k, v):
    """Softmax attention of one head over one sequence, in which no token sees a later one.

    q, k: shape (L, d). v: shape (L, e). Returns y: shape (L, e),
    y_t = sum over s <= t of w_ts v_s, where w_t = softmax over s <= t of (q_t · k_s) / sqrt(d).
    """
    length, d = q.shape
    scores = q @ k.T / np.sqrt(d)  # (L, L)
    later = np.triu(np.ones((length, length), dtype=bool), k=1)  # (L, L), True where s > t
    scores = np.where(later, -np.inf, scores)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))  # (L, L), the largest is 1: exp cannot overflow
    return weights / weights.sum(axis=1, keepdims=True) @ v  # (L, e)


def _attention(mask_offset: int | None = 1, scale: bool = True, axis: int = 1, shift: bool = True) -> Any:
    """An attention with one step done wrongly."""

    def attention(q, k, v):
        scores = q @ k.T / (np.sqrt(q.shape[1]) if scale else 1)
        if mask_offset is not None:
            scores = np.where(np.triu(np.ones(scores.shape, dtype=bool), k=mask_offset), -np.inf, scores)
        weights = np.exp(scores - (scores.max(axis=axis, keepdims=True) if shift else 0))
        return weights / weights.sum(axis=axis, keepdims=True) @ v

    return attention


def _attention_cases() -> list[Case]:
    cases = []
    for seed, (length, d, e) in enumerate([(5, 3, 2), (1, 4, 4), (2, 1, 3), (17, 8, 8)]):
        rng = np.random.default_rng(seed)
        shapes = (length, d), (length, d), (length, e)
        cases.append(Case(f"random, L = {length}", tuple(rng.normal(size=shape) for shape in shapes)))
    q, k, v = cases[0].arguments
    return [*cases, Case("scores in the thousands", (100 * q, 100 * k, v))]


attention = Code(
    id="0.2",
    title="Attention that cannot look ahead",
    text=r"""
    Write causal softmax attention for one head: queries and keys of shape $(L, d)$, values of shape $(L, e)$,

    $$
    y_t = \sum_{s \le t} w_{ts}\, v_s, \qquad
    w_{ts} = \frac{\exp(q_t \cdot k_s / \sqrt d)}{\sum_{r \le t} \exp(q_t \cdot k_r / \sqrt d)} .
    $$

    It must also survive scores in the thousands. Your function gets NumPy arrays; NumPy or torch inside is up to you.
    """,
    reference=causal_attention,
    cases=_attention_cases,
    slips=(
        Slip(_attention(None), "Row t also reads tokens after t. Which entries of the L × L score matrix must go?"),
        Slip(_attention(0), "A token may read itself: s ≤ t includes s = t."),
        Slip(_attention(scale=False), "The scores are not scaled. What does the formula divide q · k by?"),
        Slip(_attention(axis=0), "The weights of one query must sum to 1. Over which axis do you normalise?"),
        Slip(
            _attention(shift=False),
            "exp overflows for large scores. Softmax does not change if you subtract one number from a whole row.",
        ),
    ),
    hint="Four steps: scores (L, L), hide s > t, softmax along each row, weighted sum of the values.",
    insight="Every token reads the whole past again, and that is what the L × L matrix costs.",
)


def running_summary(x, a):
    """Exponential running mean of a sequence.

    x: shape (L, d). a: number in [0, 1]. Returns every summary, h: shape (L, d),
    h_t = a h_(t-1) + (1 - a) x_t, with h = 0 before the first token.
    """
    summaries = np.zeros_like(x)  # (L, d)
    h = np.zeros(x.shape[1])  # (d,)
    for t in range(len(x)):
        h = a * h + (1 - a) * x[t]
        summaries[t] = h
    return summaries


def _summary(keep: Any, write: Any, first: Any = lambda x, a: 0 * x[0]) -> Any:
    """A running summary with other coefficients or another start."""

    def summary(x, a):
        summaries, h = [], first(x, a)
        for token in x:
            h = keep(a) * h + write(a) * token
            summaries.append(h)
        return np.stack(summaries)

    return summary


def _summary_cases() -> list[Case]:
    rng = np.random.default_rng(3)
    return [
        Case("random", (rng.normal(size=(6, 2)), 0.9)),
        Case("one token", (rng.normal(size=(1, 3)), 0.5)),
        Case("a = 0: only the newest token counts", (rng.normal(size=(4, 2)), 0.0)),
        Case("a = 1: nothing is ever written", (rng.normal(size=(4, 2)), 1.0)),
        Case("a long sequence", (rng.normal(size=(300, 2)), 0.99)),
    ]


summary = Code(
    id="0.3",
    title="One running summary",
    text=r"""
    Fold a sequence $x$ of shape $(L, d)$ into one vector of length $d$ that is updated at each token,

    $$ h_t = a\, h_{t-1} + (1 - a)\, x_t , \qquad h_{-1} = 0 , $$

    and return all the $h_t$ as an array of shape $(L, d)$. The number $a$ between 0 and 1 says how much is kept.
    """,
    reference=running_summary,
    cases=_summary_cases,
    slips=(
        Slip(_summary(lambda a: a, lambda a: 1), "The new token is added whole. By what does the formula multiply it?"),
        Slip(
            _summary(lambda a: 1 - a, lambda a: a),
            "The two factors are exchanged: a belongs to the old summary, 1 - a to the new token.",
        ),
        Slip(
            _summary(lambda a: a, lambda a: 1 - a, first=lambda x, a: x[0]),
            "The summary must be 0 before the first token, so h_0 = (1 - a) x_0 and not x_0.",
        ),
        Slip(lambda x, a: running_summary(x, a)[-1], "That is the last summary. Return all L of them, shape (L, d)."),
        Slip(lambda x, a: (1 - a) * x, "The old summary is lost. Does your loop carry h from one token to the next?"),
    ),
    hint="Start with h = 0, loop over the L tokens, update h, store it in row t.",
    insight="Work and memory per token never grow, whatever the length: d numbers are kept, all else is forgotten.",
)


def break_even(layers, kv_heads, head_dim, state_bytes, bytes_per_number):
    """The smallest number of tokens whose KV cache takes more bytes than a fixed recurrent state.

    All arguments are whole numbers; `state_bytes` is the state of the whole recurrent model. Returns an int.
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

    a: number with 0 < a < 1. Returns (x, z), each of shape (L,) with the same L of your choice,
    that differ somewhere by at least 0.1, and whose last summaries are equal to 1e-9 (h as in exercise 0.3, d = 1).
    """
    x = np.array([1.0, 0.0])  # the 1 fades to a at the next step
    z = np.array([0.0, a])  # a is written directly
    return x, z


def _last_summary(x: np.ndarray, a: float) -> float:
    return float(running_summary(x[:, None], a)[-1, 0])


def _recall(x: np.ndarray) -> np.ndarray:
    """What the last token reads from each position, by attention whose keys are one-hot positions. Returns (L,)."""
    length = len(x)
    keys, queries = np.eye(length), np.zeros((length, length))
    reads = []
    for position in range(length):
        queries[-1] = 50 * np.sqrt(length) * keys[position]  # a score of 50: all other weights are below e^-49
        reads.append(causal_attention(queries, keys, x[:, None])[-1, 0])
    return np.array(reads)


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
    The running summary of exercise 0.3 is one number here ($d = 1$). Show that it loses information: for any given
    $a$ with $0 < a < 1$, return two sequences of the same length that differ somewhere by at least 0.1 and still leave
    the same last summary $h_{L-1}$, to $10^{-9}$. The check lets attention, with one key per position, look at both: it
    must find the difference.
    """,
    reference=same_summary,
    cases=lambda: [Case("one of several decays", (a,)) for a in (0.5, 0.9, 0.1, 0.99, 0.731)],
    verify=_same_summary_problem,
    hint="Take length 2 and write the summary out: (1 - a)(a x_0 + x_1). Which other pair gives the same bracket?",
    insight="After the last token no reader of the summary can know which of the two pasts was real; attention, which "
    "kept both tokens, can.",
)

EXERCISES = (cache_bytes, attention, summary, crossover, forget)
