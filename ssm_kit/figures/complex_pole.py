"""A complex coefficient turns the state while it fades: a memory with a rhythm."""

from typing import Any

import numpy as np

from ssm_kit.colours import INK, QUIET, STATE

from .base import Figure, slider

LAGS = 81


class ComplexPole(Figure):
    """The powers of a = r e^(iθ) in the unit disc, and their real part: what is left of one input i steps later.

    A real model has poles in pairs, a and its mirror image; together they leave 2 Re aⁱ.

    Traits:
        radius: r, the share that survives a step, 0 to 1.02; unstable from 1 on.
        angle: θ in radians, the turn of one step, 0 to 3.14; one full turn takes 2π/θ steps.
    """

    bundle = "complex_pole.js"
    heights = (521, 766)

    radius = slider(0.97, 0.0, 1.02, 0.01, "Radius r")
    angle = slider(0.30, 0.0, 3.14, 0.01, "Angle θ (rad)")

    def draw(self, canvas: Any) -> None:
        from ssm_kit.lti import kernel

        a, one = np.array([self.radius * np.exp(1j * self.angle)]), np.ones(1, dtype=complex)
        powers = kernel(a, one, one, LAGS)
        disc, response = canvas.subplots(1, 2)
        self._draw_disc(disc, a[0], powers)
        self._draw_response(response, powers)

    def _draw_disc(self, axes: Any, a: complex, powers: np.ndarray) -> None:
        circle = np.exp(2j * np.pi * np.linspace(0, 1, 200))
        axes.plot(circle.real, circle.imag, color=QUIET, lw=1)
        axes.plot(powers.real, powers.imag, ".-", color=STATE, lw=0.8)
        axes.plot(a.real, -a.imag, "x", color=QUIET, ms=7)
        axes.plot(a.real, a.imag, "x", color=STATE, ms=10, mew=2.5)
        axes.set(xlim=(-1.32, 1.32), ylim=(-1.32, 1.32), xlabel="real part", ylabel="imaginary part", aspect="equal")
        axes.set_title(f"r = {self.radius:g}, θ = {self.angle:g} rad")

    def _draw_response(self, axes: Any, powers: np.ndarray) -> None:
        from ssm_kit.lti import half_life

        lags, size = np.arange(LAGS), self.radius ** np.arange(LAGS)
        axes.plot(lags, size, "--", lags, -size, "--", color=QUIET, lw=1)
        axes.vlines(lags, 0, powers.real, color=STATE, lw=1)
        axes.plot(lags, powers.real, ".", color=STATE)
        axes.set(xlabel="steps i after the input", ylabel="left of one input, Re aⁱ", ylim=(-1.2, 1.2))
        axes.set_box_aspect(1)  # as tall as the disc
        if (life := float(half_life(np.array(self.radius)))) < LAGS:
            axes.plot(life, 0.5, "o", color=INK)
            axes.set_title(f"half after {life:.2g} steps", fontsize=9)
