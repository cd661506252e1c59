"""Four ways to turn h'(t) = a h(t) + x(t) into a recurrence."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssm_kit import colours

from .base import Figure, choice, slider, toggle

METHODS = ("zoh", "bilinear", "euler", "mamba")
KINDS = ("smooth", "held")
LABELS = {"zoh": "ZOH", "bilinear": "bilinear", "euler": "Euler", "mamba": "Mamba ΔB"}
COLOURS = dict(zip(METHODS, (colours.ZOH, colours.BILINEAR, colours.EULER, colours.MAMBA), strict=True))
T_END = 8.0
Floats = NDArray[np.float64]


def times(delta: float) -> Floats:
    """Sample times 0, Δ, 2Δ, ... up to 8 s."""
    return np.arange(int(T_END / delta + 1e-9) + 1, dtype=np.float64) * delta


def signal(t: Floats) -> Floats:
    """The smooth input."""
    return np.sin(t) + 0.5 * np.sin(3 * t)


def smooth(a: float, t: Floats) -> Floats:
    """h(t) under the smooth input from h(0) = 0, in closed form."""

    def sine(w: float) -> Floats:
        return (w * np.exp(a * t) - w * np.cos(w * t) - a * np.sin(w * t)) / (a * a + w * w)

    return sine(1.0) + 0.5 * sine(3.0)


def trajectory(method: str, a: float, delta: float, average: bool) -> Floats:
    """States h₀ = 0, h₁, ... of one rule; `average` feeds the bilinear rule the mean of xₖ₋₁ and xₖ."""
    from ssm_kit.lti import discretize, recurrence

    x = signal(times(delta))
    if average and method == "bilinear":
        x[1:] = (x[:-1] + x[1:]) / 2
    A_bar, B_bar = discretize(np.array([a]), np.ones(1), delta, method)
    return np.asarray(recurrence(A_bar, B_bar, np.ones(1), x))  # x₀ = 0, so the first state is 0


def solution(kind: str, a: float, delta: float) -> Floats:
    """The differential equation's own h at the sample times; for a held input that is what ZOH computes."""
    return smooth(a, times(delta)) if kind == "smooth" else trajectory("zoh", a, delta, average=False)


def averages(kind: str, average: bool) -> bool:
    """Whether the bilinear rule averages: a held input is xₖ throughout the step, so that its mean is xₖ."""
    return average and kind == "smooth"


def largest_error(method: str, kind: str, a: float, delta: float, average: bool) -> float:
    """max |hₖ − h(tₖ)| over 8 s."""
    return float(np.abs(trajectory(method, a, delta, averages(kind, average)) - solution(kind, a, delta)).max())


class Discretization(Figure):
    """One scalar model, four rules, and what each costs in accuracy.

    Args:
        delta: step Δ in seconds, 0.01 to 1.
        a: rate of the model in 1/s, -5 to -0.1.
        method: "zoh", "bilinear", "euler" or "mamba" (exp(Δa) with B̄ = ΔB).
        kind: "smooth" input, or "held" at xₖ from tₖ₋₁ to tₖ.
        average: whether the bilinear rule takes the mean of xₖ₋₁ and xₖ of a smooth input, or xₖ alone as S4's code
            does. A held input is xₖ throughout the step: there it always takes xₖ.
    """

    bundle = "discretization.js"
    heights = (741, 806)

    delta = slider(0.15, 0.01, 1.0, 0.01, "Step Δ (s)")
    a = slider(-1.0, -5.0, -0.1, 0.05, "Rate a (s⁻¹)")
    method = choice("zoh", METHODS)
    kind = choice("smooth", KINDS)
    average = toggle(True)

    def draw(self, canvas: Any) -> None:
        """Signals above, error against Δ below."""
        top, bottom = canvas.subplots(2, 1)
        self._draw_signals(top)
        self._draw_errors(bottom)
        for axes in (top, bottom):
            axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))

    def _draw_signals(self, axes: Any) -> None:
        k, colour = times(self.delta), COLOURS[self.method]
        t = k if self.kind == "held" else np.linspace(0, T_END, 400)
        style = "steps-pre" if self.kind == "held" else "default"
        axes.plot(t, signal(t), ":", color=colours.INPUT, drawstyle=style, label="input x(t)")
        axes.plot(k, solution(self.kind, self.a, self.delta), color=colours.RULE, lw=5, label="exact h(t)")
        states = trajectory(self.method, self.a, self.delta, averages(self.kind, self.average))
        axes.plot(k, states, ".-", drawstyle="steps-post", lw=1, color=colour, label=f"{LABELS[self.method]} hₖ")
        title = f"From a differential equation to a recurrence: Δ = {self.delta:g} s, a = −{-self.a:g} s⁻¹"
        axes.set(xlabel="time t (s)", ylabel="input and state", ylim=(-1.6, 1.6), title=title)

    def _draw_errors(self, axes: Any) -> None:
        grid = T_END / np.unique(np.rint(T_END / np.geomspace(0.02, 1, 16)))[::-1]
        for m in METHODS:
            errors = [largest_error(m, self.kind, self.a, d, self.average) for d in grid]
            chosen = m == self.method
            axes.loglog(grid, errors, color=COLOURS[m], lw=3 if chosen else 1.5, zorder=3 + chosen, label=LABELS[m])
        axes.axvline(self.delta, color=colours.QUIET, ls="--", lw=1)
        axes.set(xlabel="step size Δ (s)", ylabel="max |hₖ − h(tₖ)|", ylim=(3e-6, 10))
        axes.minorticks_off()
