"""Exercises of chapter 1, Linear recurrences."""

from typing import Any

import numpy as np

from ssm_kit.exercises.exercise import BreakIt, Case, Code, Number, Slip

half_life = Number(
    id="1.1",
    title="A memory of a thousand steps",
    text=r"""
    In $h_k = \bar a\, h_{k-1} + \bar b\, x_k$ the trace of a token fades by the factor $\bar a$ at each step. Which
    $\bar a$ between 0 and 1 gives a **half-life of exactly 1,000 steps**? Give at least seven decimals: the answer is
    accepted within $10^{-6}$.
    """,
    variable="a_bar",
    working="0.5 ** (1 / 1000)",
    factors="one half after 1,000 multiplications",
    unit="per step",
    within=1e-6,
    slips=(
        Slip(np.exp(-1 / 1000), "After 1,000 steps that ā leaves 1/e = 0.37: a time constant. A half-life leaves 1/2."),
        Slip(0.9993, "You are very near: give seven decimals at least."),
        Slip(0.5 ** (1 / 100), "That memory is ten times too short. Which power of ā must be one half?"),
        Slip(0.5, "That ā has lost half after one single step."),
        Slip(2 ** (1 / 1000), "Above 1 a state grows. It must fall to one half."),
    ),
    hint="After 1,000 steps the factor is ā multiplied by itself 1,000 times, and it must equal one half.",
    insight="0.9993069: a long memory sits in the fourth decimal of ā, so S4 and Mamba learn a rate instead of ā.",
)


def run(A, B, C, x):
    """Output of a linear recurrence that starts from a zero state.

    h_k = A h_(k-1) + B x_k,  y_k = C · h_k. A: shape (N,) for a diagonal
    matrix, or (N, N) for a dense one. B, C: shape (N,). x: shape (L,).
    Returns y: shape (L,), complex if any of A, B, C is.
    """
    h, y = np.zeros(len(B)), []
    for x_k in x:
        kept = A @ h if A.ndim == 2 else A * h  # (N,)
        h = kept + B * x_k
        y.append(C @ h)
    return np.array(y)  # (L,)


def _run(step: Any, late: bool = False, real: bool = False) -> Any:
    """A recurrence with a wrong step, that reads its state too late, or that drops imaginary parts."""

    def wrong_run(A, B, C, x):
        h, y = np.zeros(len(B), dtype=complex), []
        for x_k in x:
            before = h
            h = step(A, h) + B * x_k
            h = h.real if real else h
            y.append(C @ (before if late else h))
        return np.array(y)

    return wrong_run


def _product(A: np.ndarray, h: np.ndarray) -> np.ndarray:
    return A @ h if A.ndim == 2 else A * h


def _run_cases() -> list[Case]:
    rng = np.random.default_rng(5)
    vectors = [rng.normal(size=3) for _ in range(2)]
    rotation = 0.95 * np.exp(1j * np.array([0.3, -0.3]))
    return [
        Case("diagonal", (np.array([0.9, -0.5, 0.2]), *vectors, rng.normal(size=7))),
        Case("dense", (rng.normal(size=(3, 3)) / 3, *vectors, rng.normal(size=7))),
        Case("scalar, N = 1", (np.array([0.9]), np.array([0.5]), np.array([1.0]), rng.normal(size=5))),
        Case("one token", (np.array([0.9, 0.1]), np.array([1.0, 2.0]), np.array([1.0, -3.0]), np.array([2.0]))),
        Case("complex diagonal", (rotation, np.array([1.0, 1.0]), np.array([0.5, 1j]), rng.normal(size=9))),
        Case("unstable, it may grow", (np.array([1.05, 1.0]), *(v[:2] for v in vectors), rng.normal(size=40))),
    ]


recurrence = Code(
    id="1.2",
    title="Scalar, diagonal, dense",
    text=r"""
    One function for three recurrences. It runs $h_k = A h_{k-1} + B x_k$, $y_k = C \cdot h_k$ from $h_{-1} = 0$ over an
    input of shape $(L,)$. `B` and `C` have shape $(N,)$. `A` of shape $(N,)$ stands for a diagonal matrix, of shape
    $(N, N)$ for a dense one; $N = 1$ is the scalar case. Complex numbers must survive.
    """,
    reference=run,
    cases=_run_cases,
    slips=(
        Slip(_run(_product, late=True), "y_k reads the state *after* x_k has been written: y_0 = C · (B x_0)."),
        Slip(
            _run(lambda A, h: A.T @ h if A.ndim == 2 else A * h),
            "For a dense A, rows meet the state: A @ h, not h @ A.",
        ),
        Slip(_run(lambda A, h: np.diag(A) * h if A.ndim == 2 else A * h), "A dense A also mixes the state's entries."),
        Slip(_run(_product, real=True), "The imaginary part of the state is lost. Which dtype does your state have?"),
        Slip(
            lambda A, B, C, x: np.array([C @ (B * x_k) for x_k in x]), "Nothing is kept from step to step: where is A?"
        ),
    ),
    hint="Per step: A times the old state (A * h if A.ndim is 1, A @ h if it is 2), add B x_k, then read with C.",
    insight="A step costs about 2N multiplications if A is diagonal and N² if it is dense: the O(1) per token hides N.",
)


def pole(period, half_life):
    """The complex number that turns once in `period` steps and halves in
    `half_life` steps.

    Both are numbers > 0, in steps; half_life may be np.inf. Returns a complex
    number r e^(iθ) with θ > 0.
    """
    r = 0.5 ** (1 / half_life)
    theta = 2 * np.pi / period
    return r * np.exp(1j * theta)


def _pole_cases() -> list[Case]:
    values = [(12.0, 20.0), (4.0, 1.0), (100.0, 7.5), (3.7, 1000.0), (24.0, np.inf)]
    return [Case("it never fades" if np.isinf(h) else "a period and a half-life", (p, h)) for p, h in values]


rhythm = Code(
    id="1.3",
    title="A number with a rhythm",
    text=r"""
    A complex coefficient $\bar a = r\, e^{i\theta}$ turns the state by the angle $\theta$ and shrinks it by $r$ at each
    step. Return the $\bar a$ that turns **once around in `period` steps** and has lost **half its size after
    `half_life` steps** (both in steps; `half_life` may be `np.inf`). Take $\theta > 0$.
    """,
    reference=pole,
    cases=_pole_cases,
    tolerance=1e-9,
    slips=(
        Slip(
            lambda p, h: np.exp(-1 / h + 2j * np.pi / p), "That r has shrunk to 1/e after half_life steps, not to 1/2."
        ),
        Slip(lambda p, h: 0.5 ** (1 / h) * np.exp(1j / p), "A full turn is 2π radians, not 1."),
        Slip(lambda p, h: 0.5 ** (1 / h) * np.exp(2j * np.pi * p), "A longer period means a smaller angle per step."),
        Slip(lambda p, h: 0.5 ** (1 / h) * np.exp(-2j * np.pi / p), "Right, but turning backwards: take θ > 0."),
        Slip(
            lambda p, h: 0.5 ** (1 / h) * np.cos(2 * np.pi / p),
            "That is the real part. Return the complex number itself.",
        ),
        Slip(lambda p, h: np.exp(2j * np.pi / p), "It turns, but it never fades: use half_life for r."),
        Slip(lambda p, h: 0.5**h * np.exp(2j * np.pi / p), "A longer half-life must bring r closer to 1."),
    ),
    hint="Two conditions: r to the power half_life is 1/2, and period times θ is one full turn.",
    insight="A real ā can only fade; a complex one counts time while it fades, as S4's modes do.",
)


def gain(A, B, C):
    """Where the output settles when the input is 1 for ever.

    h_k = A h_(k-1) + B,  y_k = C · h_k, with dense A: shape (N, N), and B, C:
    shape (N,). Returns a number: the limit of y_k, or np.nan if A is not
    stable (some eigenvalue has absolute value >= 1).
    """
    if np.abs(np.linalg.eigvals(A)).max() >= 1:
        return np.nan
    settled = np.linalg.solve(np.eye(len(A)) - A, B)  # (N,): h = A h + B
    return C @ settled


def _settled(A: np.ndarray, B: np.ndarray, C: np.ndarray) -> float:
    return float(C @ np.linalg.solve(np.eye(len(A)) - A, B))


def _gain_cases() -> list[Case]:
    ones = np.ones(2)
    return [
        Case("diagonal", (np.diag([0.9, 0.5]), np.array([0.5, 1.0]), np.array([1.0, -1.0]))),
        Case("dense", (np.array([[0.5, 0.3], [-0.2, 0.7]]), np.array([1.0, 2.0]), np.array([0.5, 1.0]))),
        Case("an entry above 1, yet stable", (np.array([[0.5, 4.0], [0.0, 0.5]]), ones, ones)),
        Case("every entry below 1, yet unstable", (np.array([[0.6, 0.6], [0.6, 0.6]]), ones, ones)),
        Case("an eigenvalue below -1", (np.array([[-1.1, 0.0], [0.0, 0.3]]), ones, ones)),
        Case("scalar, N = 1", (np.array([[0.99]]), np.array([0.01]), np.array([1.0]))),
    ]


steady = Code(
    id="1.4",
    title="Where it settles",
    text=r"""
    Feed the constant input 1 to $h_k = A h_{k-1} + B x_k$, $y_k = C \cdot h_k$, with a dense $A$ of shape $(N, N)$. A
    stable recurrence settles. Return the limit of $y_k$ as a number, by algebra and not by a long loop; return `np.nan`
    where any eigenvalue of $A$ has absolute value 1 or more, even if $B$ or $C$ hides it.
    """,
    reference=gain,
    cases=_gain_cases,
    tolerance=1e-9,
    slips=(
        Slip(
            lambda A, B, C: np.nan if np.linalg.eigvals(A).max() >= 1 else _settled(A, B, C),
            "An eigenvalue of -1.1 grows as well: take absolute values.",
        ),
        Slip(_settled, "That A is unstable: the formula answers, but the output grows for ever. Return np.nan."),
        Slip(
            lambda A, B, C: np.nan if np.abs(A).max() >= 1 else _settled(A, B, C),
            "Entries do not decide about stability, eigenvalues do.",
        ),
        Slip(lambda A, B, C: C @ (B / (1 - np.diag(A))), "B / (1 - a) holds entry by entry for a diagonal A only."),
        Slip(lambda A, B, C: C @ np.linalg.solve(A, B), "When it has settled, h = A h + B. Bring the two h together."),
        Slip(lambda A, B, C: np.linalg.solve(np.eye(len(A)) - A, B), "That is the settled state. Read it with C."),
        Slip(lambda A, B, C: C @ B, "That is the first output. Later ones add what A has kept."),
    ),
    hint="A settled state no longer changes: h = A h + B. Solve for h, read with C, and check the eigenvalues first.",
    insight="For one number the limit is b̄ c / (1 - ā): the nearer ā is to 1, the longer the memory and the larger the "
    "output.",
)


def grow_first(factor):
    """A stable matrix whose state grows before it fades.

    factor: number >= 10. Returns A: shape (2, 2), real, all eigenvalues of
    absolute value <= 0.95, such that for some start h of length 1 the state
    A^k h is longer than `factor` at some step k.
    """
    return np.array([[0.9, 2 * factor], [0.0, 0.9]])  # the second entry is poured into the first, then both fade


def _grow_first_problem(arguments: tuple, A: Any) -> str:
    (factor,) = arguments
    A = np.asarray(A)
    if A.shape != (2, 2) or A.dtype.kind not in "iuf" or not np.isfinite(A).all():
        return f"A must be a real, finite array of shape (2, 2); it has shape {A.shape}, dtype {A.dtype}"
    radius = np.abs(np.linalg.eigvals(A)).max()
    if radius > 0.95 + 1e-6:  # eigenvalues of such matrices are known to about 1e-8
        return f"an eigenvalue has absolute value {radius:.6g}; at most 0.95 is asked for"
    powers, largest = np.eye(2), 1.0
    for _ in range(2000):
        powers = A @ powers
        largest = max(largest, float(np.linalg.norm(powers, 2)))
    if largest > factor:
        return ""
    return f"the longest state over 2,000 steps is {largest:.4g}; more than {factor:g} is asked for"


transient = BreakIt(
    id="1.5",
    title="Stable, and yet it grows",
    text=r"""
    "All eigenvalues lie inside the unit circle, so the state only shrinks." Break this claim: for a given `factor`,
    return a real $2 \times 2$ matrix $A$ whose eigenvalues are at most 0.95 in absolute value, and for which some state
    of length 1 grows to more than `factor` times its length before it fades. (The check computes
    $\lVert A^k \rVert_2$ for $k = 1 \dots 2000$.)
    """,
    reference=grow_first,
    cases=lambda: [Case("one of several factors", (factor,)) for factor in (10.0, 100.0, 2345.0)],
    verify=_grow_first_problem,
    hint="A diagonal A cannot do it. Which entry of a triangular 2 × 2 matrix has no influence on the eigenvalues?",
    insight="Eigenvalues rule the end, not the way there; S4D and Mamba keep A diagonal, and no entry can then outgrow "
    "its start.",
)


def drown(a, b, n):
    """Two continuations that make opposite messages end in the same state.

    h_k = a h_(k-1) + b x_k with 0 < |a| <= 1 and b != 0. A message x_0 of +1
    or -1 is followed by n >= 1 fillers. Returns (after_plus, after_minus),
    each of shape (n,) with entries between -1 and 1, after which both
    recurrences end in the same state, to 1e-9.
    """
    after_plus, after_minus = np.zeros(n), np.zeros(n)
    after_plus[-1] = -(a**n)  # what is left of the message, undone by the last filler
    after_minus[-1] = a**n
    return after_plus, after_minus


def _drown_problem(arguments: tuple, fillers: Any) -> str:
    a, b, n = arguments
    if not isinstance(fillers, tuple) or len(fillers) != 2:
        return "return two fillers, as after_plus, after_minus"
    states = []
    for message, filler in zip((1.0, -1.0), fillers, strict=True):
        filler = np.asarray(filler, dtype=float)
        if filler.shape != (n,) or not (np.abs(filler) <= 1).all():
            return f"each filler must have shape ({n},) and entries between -1 and 1; this one has shape {filler.shape}"
        h = b * message
        for x_k in filler:
            h = a * h + b * x_k
        states.append(h)
    gap = abs(states[0] - states[1])
    if gap <= 1e-9 * abs(b):
        return ""
    return f"the last states are {states[0]:.6g} and {states[1]:.6g}: the message survives"


def _drown_cases() -> list[Case]:
    values = [(0.9, 0.5, 3), (-0.7, 1.0, 4), (1.0, 0.1, 1), (0.999, 2.0, 50)]
    return [Case("one of several models", arguments) for arguments in values]


selection = BreakIt(
    id="1.6",
    title="A door that cannot close",
    text=r"""
    We want a recurrence $h_k = \bar a h_{k-1} + \bar b x_k$ that keeps a message, $x_0 = +1$ or $x_0 = -1$, and ignores
    the filler after it. Show that no fixed $\bar a$, $\bar b$ that do not explode can: given any
    $0 < |\bar a| \le 1$, any $\bar b \ne 0$ and a number $n$ of filler values, return one filler for each message, with
    entries between $-1$ and $1$, after which both end in the **same** state.
    """,
    reference=drown,
    cases=_drown_cases,
    verify=_drown_problem,
    hint="How much of the message is left after n steps? One filler value, the last one, is enough to undo it.",
    insight="A fixed b̄ admits every token alike, so filler always gets in; to select, the "
    "coefficients must depend on the token (chapter 4).",
)

EXERCISES = (half_life, recurrence, rhythm, steady, transient, selection)
