"""Exercises of chapter 2, The state space model."""

from typing import Any

import numpy as np

from ssm_kit.exercises.exercise import BreakIt, Case, Code, Number, Slip

ratio = Number(
    id="2.1",
    title="How much too much",
    text=r"""
    A diagonal state space model has the entry $a = -16$ and is sampled at $\Delta = 0.05$. Zero-order hold multiplies
    an input by $\bar b_{\text{ZOH}} = \dfrac{e^{\Delta a} - 1}{a}\, b$, the shipped Mamba code by $\Delta\, b$.
    How large is the ratio $\bar b_{\text{ZOH}} / (\Delta b)$? A pure number, to three decimals: it is accepted within
    0.0006.
    """,
    variable="ratio",
    working="(1 - np.exp(-0.8)) / 0.8",
    factors="(1 - e^z) / -z at z = Δa = -0.8",
    unit="no unit",
    within=6e-4,
    slips=(
        Slip(0.8 / (1 - np.exp(-0.8)), "Upside down: ZOH over ΔB is asked for."),
        Slip(1 - np.exp(-0.8), "Nearly: ΔB carries a factor Δ and ZOH a factor 1/a. What stays below the fraction?"),
        Slip(np.exp(-0.8), "That is Ā, what is left of the old state. The question is about B̄."),
        Slip(1 / 1.4, "That is the ratio of the bilinear rule, 1 / (1 - Δa/2)."),
        Slip((np.exp(0.8) - 1) / 0.8, "The sign of a was lost: Δa = -0.8, and the exponential shrinks."),
        Slip(-(1 - np.exp(-0.8)) / 0.8, "Mind the signs: e^(Δa) - 1 and a are both negative."),
        Slip((1 - np.exp(-0.8)) / 16, "That is B̄ of ZOH itself (for b = 1). Divide it by Δ."),
    ),
    hint="Write both for b = 1 and divide: (e^z - 1) / z with z = Δa.",
    insight="ΔB writes 1.45 times what a held input would; at |Δa| = 1.6, the largest at the start of Mamba's "
    "training, twice. B is learned and can make up for a factor.",
)


def hold(A, B, delta):
    """Zero-order hold of a diagonal model, exact at A = 0 and accurate near
    it.

    A, B: shape (N,), real or complex. delta: number > 0. Returns (A_bar,
    B_bar), each of shape (N,): A_bar = exp(delta A), B_bar = (exp(delta A) -
    1) / A · B, whose limit at A = 0 is delta B.
    """
    z = delta * A  # (N,)
    safe = np.where(z == 0, 1, z)  # never divide by zero
    share = np.where(z == 0, 1, np.expm1(safe) / safe)  # (e^z - 1) / z without cancellation
    return np.exp(z), share * delta * B


def _hold_cases() -> list[Case]:
    rng = np.random.default_rng(7)
    b = rng.normal(size=3)
    return [
        Case("real", (np.array([-1.0, -4.0, -16.0]), b, 0.1)),
        Case("complex", (np.array([-0.5 + 3j, -0.5 - 3j, -0.1 + 20j]), b, 0.05)),
        Case("one entry is exactly 0", (np.array([0.0, -1.0, -2.0]), b, 0.5)),
        Case("entries very close to 0", (np.array([-1e-9, 1e-10, -3e-8]), b, 0.1)),
        Case("large step", (np.array([-1.0, -2.0, -3.0]), b, 20.0)),
    ]


zoh = Code(
    id="2.2",
    title="Zero-order hold that survives zero",
    text=r"""
    For a diagonal model (`A`, `B` of shape $(N,)$, real or complex) return the pair of zero-order hold

    $$ \bar A = e^{\Delta A}, \qquad \bar B = \frac{e^{\Delta A} - 1}{A}\, B . $$

    An entry of `A` may be exactly 0, where $\bar B$ has the limit $\Delta B$, or as small as $10^{-10}$. Nine digits
    must be right. `np.expm1(z)` computes $e^z - 1$ without losing digits.
    """,
    reference=hold,
    cases=_hold_cases,
    tolerance=1e-10,
    slips=(
        Slip(
            lambda A, B, d: (np.exp(d * A), np.where(A == 0, d, (np.exp(d * A) - 1) / np.where(A == 0, 1, A)) * B),
            "At 0 it is right; close to 0, e^z - 1 subtracts two nearly equal numbers. np.expm1 does not.",
        ),
        Slip(
            lambda A, B, d: (np.exp(d * A), np.expm1(d * A) / A * B),
            "Where A is exactly 0 that is 0/0. Put the limit ΔB there; np.where can keep you from dividing by zero.",
        ),
        Slip(lambda A, B, d: (np.exp(d * A), d * B), "ΔB is Mamba's shortcut, not zero-order hold."),
        Slip(lambda A, B, d: (1 + d * A, d * B), "That is forward Euler. Zero-order hold has an exponential."),
        Slip(
            lambda A, B, d: (np.exp(d * A), hold(A, np.ones_like(B), d)[1]),
            "B is missing in B_bar.",
        ),
        Slip(
            lambda A, B, d: (np.exp(d * A), hold(A, B, d)[1] / d),
            "The denominator is A, not ΔA: B_bar must vanish as Δ does.",
        ),
        Slip(
            lambda A, B, d: (np.exp(d * A), hold(A, B, d)[1] * d),
            "One Δ too many: (e^(ΔA) - 1) / A has its Δ inside already.",
        ),
    ),
    hint="With z = ΔA: A_bar = e^z and B_bar = (e^z - 1)/z · ΔB, where the fraction is 1 at z = 0.",
    insight="The input is held constant over the step and then this is exact, not an approximation: even at Δ = 20.",
)


def impulse_response(A_bar, B_bar, C, length):
    """Convolution kernel of a diagonal discrete model.

    A_bar, B_bar, C: shape (N,), real or complex. length: L >= 1. Returns K:
    shape (L,),
    K_i = sum over n of C_n A_bar_n^i B_bar_n, for i = 0 ... L - 1.
    """
    powers = A_bar[:, None] ** np.arange(length)  # (N, L), a Vandermonde matrix; 0 ** 0 is 1
    return (C * B_bar) @ powers  # (L,)


def _kernel_cases() -> list[Case]:
    rng = np.random.default_rng(11)
    b, c = rng.normal(size=3), rng.normal(size=3)
    turning = 0.9 * np.exp(1j * np.array([0.4, -0.4, 2.0]))
    return [
        Case("real", (np.array([0.9, 0.5, -0.3]), b, c, 6)),
        Case("length 1", (np.array([0.9, 0.5, -0.3]), b, c, 1)),
        Case("one entry forgets at once", (np.array([0.0, 0.5, 1.0]), b, c, 5)),
        Case("complex", (turning, b, c + 1j * b, 11)),
        Case("long", (np.array([0.999, 0.99, 0.9]), b, c, 1000)),
    ]


def _kernel(start: int = 0, sign: int = 1) -> Any:
    return lambda A, B, C, length: (C * B) @ A[:, None] ** (start + np.arange(length)[::sign])


impulse = Code(
    id="2.3",
    title="The kernel of a recurrence",
    text=r"""
    Feed the recurrence $h_k = \bar A h_{k-1} + \bar B x_k$, $y_k = C \cdot h_k$ a single 1 and then zeros. What comes
    out is its convolution kernel

    $$ K_i = \sum_{n=1}^{N} C_n\, \bar A_n^{\,i}\, \bar B_n , \qquad i = 0, \dots, L - 1 . $$

    Return $K$ of shape $(L,)$ for a diagonal model: `A_bar`, `B_bar` and `C` have shape $(N,)$ and may be complex.
    """,
    reference=impulse_response,
    cases=_kernel_cases,
    slips=(
        Slip(_kernel(start=1), "Shifted by one step: K_0 = C · B_bar, with no power of A_bar in it."),
        Slip(_kernel(sign=-1), "Reversed in time: K_0 belongs to the newest input."),
        Slip(lambda A, B, C, n: B @ A[:, None] ** np.arange(n), "C is missing: a kernel is what the output shows."),
        Slip(
            lambda A, B, C, n: C @ A[:, None] ** np.arange(n), "B_bar is missing: how does the impulse enter the state?"
        ),
        Slip(
            lambda A, B, C, n: impulse_response(A, B, C, n).real,
            "Complex parameters give a complex kernel here: keep it.",
        ),
        Slip(
            lambda A, B, C, n: (C * B)[:, None] * A[:, None] ** np.arange(n),
            "Those are the N single modes. The kernel is their sum over n.",
        ),
    ),
    hint="Each n is one geometric sequence, C_n B_bar_n times 1, A_bar_n, A_bar_n², …; add the N of them.",
    insight="However long the kernel, 3N numbers describe it: a sum of N exponentials.",
)


def causal_convolution(x, K):
    """Causal convolution by FFT, for a kernel shorter or longer than the
    input.

    x: shape (L,), real. K: shape (M,), real. Returns y: shape (L,), y_k = sum
    of K_i x_(k-i) over 0 <= i <= k, i < M.
    """
    padded = len(x) + len(K) - 1  # the length of the full result: nothing wraps around onto the start
    y = np.fft.irfft(np.fft.rfft(x, padded) * np.fft.rfft(K, padded), padded)
    return y[: len(x)]


def _convolution_cases() -> list[Case]:
    rng = np.random.default_rng(13)
    sizes = [(5, 3), (1, 1), (2, 7), (3, 3), (64, 9), (40, 257)]
    cases = [Case(f"random, L = {n}, M = {m}", (rng.normal(size=n), rng.normal(size=m))) for n, m in sizes]
    return [*cases, Case("a slowly fading kernel", (rng.normal(size=100), 0.999 ** np.arange(100)))]


def _circular(x: np.ndarray, K: np.ndarray, padded: int) -> np.ndarray:
    return np.fft.ifft(np.fft.fft(x, padded) * np.fft.fft(K, padded)).real[: len(x)]


convolution = Code(
    id="2.4",
    title="Convolution that does not wrap",
    text=r"""
    The other face of the recurrence, with a kernel of its own length: $y_k = \sum_i K_i\, x_{k-i}$ over
    $0 \le i \le k$ and $i < M$, for $k = 0, \dots, L-1$. Compute it with the FFT for real `x` of shape $(L,)$ and
    `K` of shape $(M,)$, where $M$ may be smaller or larger than $L$. How many zeros do both need, so that
    nothing wraps?
    """,
    reference=causal_convolution,
    cases=_convolution_cases,
    slips=(
        Slip(
            lambda x, K: _circular(x, K, max(len(x), len(K))),
            "What runs past the end comes back in at the start. How long is the full result?",
        ),
        Slip(
            lambda x, K: _circular(x, K, 2 * len(x)),
            "2L points are enough for a kernel no longer than the input. Here it can be longer.",
        ),
        Slip(lambda x, K: np.convolve(x, K), "That is the full convolution, L + M - 1 entries. Keep the first L."),
        Slip(
            lambda x, K: np.convolve(x, K, "same"),
            "The window is in the middle, so it looks ahead. Keep the first L entries.",
        ),
        Slip(lambda x, K: np.convolve(x, K)[-len(x) :], "Those are the last L entries. The causal ones are the first."),
        Slip(
            lambda x, K: causal_convolution(x, K[::-1]),
            "The kernel is reversed: K_0 multiplies the newest input.",
        ),
    ),
    hint="Three steps: FFT of both at length L + M - 1 or more, multiply, inverse FFT; keep the first L entries, real.",
    insight="L log L work instead of L², all positions at once: this is how time-invariant models such as S4 train.",
)


def change_step(A_bar, B_bar, ratio):
    """The same continuous model, sampled with another step, from its
    zero-order-hold pair alone.

    A_bar: shape (N,), 0 < A_bar <= 1. B_bar: shape (N,). ratio: new step /
    old step > 0 (1/2 samples twice as often). Returns the new pair (A_bar,
    B_bar), each of shape (N,).
    """
    new_A_bar = A_bar**ratio  # exp(ratio · ΔA)
    still = A_bar == 1  # A = 0: nothing fades, the input just adds up
    grown = np.where(still, ratio, (new_A_bar - 1) / np.where(still, 1, A_bar - 1))
    return new_A_bar, grown * B_bar


def _step_cases() -> list[Case]:
    rng = np.random.default_rng(17)
    a_bar, b_bar = np.array([0.9, 0.5, 0.05]), rng.normal(size=3)
    return [
        Case("twice the rate", (a_bar, b_bar, 0.5)),
        Case("a third of the rate", (a_bar, b_bar, 3.0)),
        Case("one entry never fades", (np.array([1.0, 0.9, 0.2]), b_bar, 0.5)),
        Case("the same rate", (a_bar, b_bar, 1.0)),
        Case("an odd ratio", (a_bar, b_bar, 16_000 / 44_100)),
    ]


resample = Code(
    id="2.5",
    title="Same model, another sampling rate",
    text=r"""
    A model was discretised by zero-order hold: $\bar A = e^{\Delta A}$, $\bar B = \frac{e^{\Delta A} - 1}{A} B$,
    entry by entry. Now the signal comes with the step $\Delta' = \text{ratio} \cdot \Delta$; `ratio = 0.5` is twice
    the rate. Return the new pair. You are given `A_bar` (with $0 < \bar A \le 1$) and `B_bar` only: neither $A$ nor
    $\Delta$ is needed. Mind $\bar A = 1$, which is $A = 0$.
    """,
    reference=change_step,
    cases=_step_cases,
    tolerance=1e-9,
    slips=(
        Slip(
            lambda A, B, r: (A**r, B),
            "B_bar depends on the step as well: over half a step, less of the input flows in.",
        ),
        Slip(
            lambda A, B, r: (A**r, r * B),
            "Scaling B_bar by the ratio is Mamba's ΔB, or A = 0. What flows in early fades.",
        ),
        Slip(lambda A, B, r: (r * A, r * B), "Δ sits in the exponent: e^(ratio · ΔA) is a power of A_bar."),
        Slip(
            lambda A, B, r: (A ** (1 / r), change_step(A, B, 1 / r)[1]),
            "Inverted: ratio is the new step over the old one.",
        ),
        Slip(
            lambda A, B, r: (A**r, (A**r - 1) / (A - 1) * B),
            "Where A_bar is 1 that is 0/0. What does B_bar become if nothing fades?",
        ),
    ),
    hint="A_bar is raised to a power. For B_bar divide the new formula by the old one: A and B cancel.",
    insight="One number, Δ, moves a trained continuous model to another sampling rate; a plain RNN has no such knob.",
)


def explode(a):
    """A step at which forward Euler explodes although the system fades.

    a: complex number with real part < 0. Returns delta > 0 with |1 + delta a|
    > 1 and |1 + delta a / 2| < 1.
    """
    limit = -2 * a.real / abs(a) ** 2  # |1 + Δa|² = 1 + 2Δ Re a + Δ²|a|² equals 1 here
    return 1.5 * limit


def _explode_problem(arguments: tuple, delta: Any) -> str:
    (a,) = arguments
    if np.ndim(delta) or isinstance(delta, bool) or np.iscomplexobj(delta):
        return "return one real number, the step"
    step = float(delta)
    if not (np.isfinite(step) and step > 0):
        return f"the step must be a finite number above 0; it is {step:g}"
    size, half = abs(1 + step * a), abs(1 + step * a / 2)
    if size <= 1:
        return f"at delta = {step:.6g} Euler's factor has size {size:.6g}: it still fades"
    if half >= 1:
        return f"at half of delta = {step:.6g} Euler's factor has size {half:.6g}: it explodes there too, come nearer"
    return ""


euler = BreakIt(
    id="2.6",
    title="Let Euler explode",
    text=r"""
    The system $h'(t) = a\,h(t)$ fades whenever $\operatorname{Re} a < 0$. Forward Euler replaces it by
    $h_k = (1 + \Delta a)\, h_{k-1}$. For a given complex $a$ with $\operatorname{Re} a < 0$, return a step $\Delta$
    at which Euler **grows** without bound, although at **half** that step it still fades. Zero-order hold fades at
    both.
    """,
    reference=explode,
    cases=lambda: [
        Case("real" if a.imag == 0 else "it also turns", (a,))
        for a in (-1 + 0j, -50 + 0j, -0.5 + 3j, -0.5 + 100j, -0.01 - 1j)
    ],
    verify=_explode_problem,
    hint="Write |1 + Δa|² as a quadratic in Δ. It is 1 at Δ = 0; where is it 1 again?",
    insight="A mode that turns fast forces Euler to steps below 2|Re a| / |a|²; ZOH has no such limit.",
)

EXERCISES = (ratio, zoh, impulse, convolution, resample, euler)
