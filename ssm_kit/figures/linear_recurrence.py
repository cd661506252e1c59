"""One number of memory: h_k = Ā h_{k−1} + B̄ x_k, and how long it remembers."""

from typing import Any

import numpy as np

from ssm_kit.colours import INK, INPUT, QUIET, STATE, WARNING

from .base import Figure, choice, slider

PATTERNS = ("impulse", "step", "noise", "tokens")
LENGTH, LAGS = 60, 101
START, SPIKES = 5, (5, 20, 23, 42)


def signal(pattern: str) -> np.ndarray:
    """The input that the figure feeds: x_0 .. x_59, the same numbers as in the browser.

    Args:
        pattern: "impulse" (a single 1), "step" (1 from then on), "noise" (in [−1, 1), a fixed sequence) or
            "tokens" (four that matter among small filler).

    Returns:
        (60,) float64.

    Raises:
        ValueError: an unknown pattern.
    """
    if pattern not in PATTERNS:
        raise ValueError(f"pattern must be one of {', '.join(map(repr, PATTERNS))}; got {pattern!r}")
    k = np.arange(LENGTH)
    if pattern in ("impulse", "step"):
        return np.where(k == START if pattern == "impulse" else k >= START, 1.0, 0.0)
    return _noise() if pattern == "noise" else np.where(np.isin(k, SPIKES), 1.0, 0.15 * np.abs(_noise()))


def _noise() -> np.ndarray:
    """A linear congruential generator small enough to be exact in JavaScript: s ← (75 s + 74) mod 65537."""
    states = [1]
    for _ in range(LENGTH):
        states.append((75 * states[-1] + 74) % 65537)
    return np.array(states[1:]) / 32768 - 1


class LinearRecurrence(Figure):
    """The scalar recurrence on a chosen input, what is left of one input, and the half-life against Ā.

    Traits:
        a_bar: Ā, the share of the state that survives a step, −1 to 1.05; unstable from |Ā| = 1 on.
        b_bar: B̄, the share of the input that is written, 0 to 1.
        pattern: the input, see `signal`.
    """

    bundle = "linear_recurrence.js"
    heights = (713, 840)

    a_bar = slider(0.90, -1.0, 1.05, 0.005, "Keep Ā")
    b_bar = slider(0.50, 0.0, 1.0, 0.01, "Write B̄")
    pattern = choice("impulse", PATTERNS)

    def draw(self, canvas: Any) -> None:
        grid = canvas.add_gridspec(2, 2)
        self._draw_state(canvas.add_subplot(grid[0, :]))
        self._draw_response(canvas.add_subplot(grid[1, 0]))
        self._draw_half_life(canvas.add_subplot(grid[1, 1]))

    def _draw_state(self, axes: Any) -> None:
        from ssm_kit.lti import recurrence

        x = signal(self.pattern)
        h = recurrence(np.array([self.a_bar]), np.array([self.b_bar]), np.ones(1), x)
        axes.bar(range(LENGTH), x, color=INPUT, alpha=0.5, label="input xₖ")
        axes.plot(h, ".-", color=STATE, lw=1, label="state hₖ")
        axes.set(title=f"Ā = {self.a_bar:g}, B̄ = {self.b_bar:g}", xlabel="step k")
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)  # above: the data fill the axes

    def _draw_response(self, axes: Any) -> None:
        from ssm_kit.lti import half_life, kernel

        left = kernel(np.array([self.a_bar]), np.array([self.b_bar]), np.ones(1), LAGS)
        axes.bar(range(LAGS), left, color=STATE)
        axes.set(xlabel="steps i after the input", ylabel="left of one input, Āⁱ B̄")
        if (life := float(half_life(np.array(self.a_bar)))) < LAGS:
            axes.plot(life, self.b_bar / 2, "o", color=INK)
            axes.set_title(f"half is left after {life:.2g} steps", fontsize=9)

    def _draw_half_life(self, axes: Any) -> None:
        from ssm_kit.lti import half_life

        size, here = 1 - np.geomspace(0.99, 0.001, 200), abs(self.a_bar)
        axes.semilogy(size, half_life(size), color=STATE)
        axes.axvspan(1, 1.06, color=WARNING, alpha=0.12, lw=0)
        axes.axvline(here, color=QUIET, ls="--", lw=1)
        if 0 < here < 1:
            axes.plot(here, half_life(np.array(here)), "o", color=STATE)
        axes.set(xlabel="size |Ā|", ylabel="half-life (steps)", xlim=(0, 1.06), ylim=(0.2, 400))
