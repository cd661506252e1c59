"""Four ways to turn h'(t) = a h(t) + x(t) into a recurrence."""

from typing import Any

import numpy as np

from . import colours
from .base import Figure, choice, slider

METHODS = ("zoh", "bilinear", "euler", "mamba")


class Discretization(Figure, bundle="discretization.js", space=(780, 780)):
    """One scalar model, four rules, and what each costs in accuracy."""

    delta = slider(0.15, 0.01, 1.0, 0.01, "Step Δ (s)")
    a = slider(-1.0, -4.0, -0.1, 0.05, "Rate a (s⁻¹)")
    method = choice("zoh", METHODS)

    def draw(self, canvas: Any) -> None:
        """Error of the four rules, for now."""
        axes = canvas.subplots()
        axes.plot(np.zeros(2), color=colours.STATE)
