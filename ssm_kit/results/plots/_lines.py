"""What all plots of results share: the style, and a line with its spread over seeds."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from ssm_kit.results.plots._models import look

STYLE = "ssm_kit.book"


def band(axes: Axes, x: Sequence[float], by_seed: np.ndarray, label: str) -> None:
    """A line for the mean of (seeds, points), and what lies between the extreme seeds."""
    _line(axes, x, np.stack([by_seed.mean(0), by_seed.min(0), by_seed.max(0)]), label)


def spread(axes: Axes, x: Sequence[float], points: Sequence[dict[str, float] | None], label: str) -> None:
    """The same from a summary's {"mean", "low", "high"} of each point; None is not drawn. Points have marks."""
    nothing = dict.fromkeys(("mean", "low", "high"), np.nan)
    entries = [point or nothing for point in points]
    _line(axes, x, np.array([[entry[name] for entry in entries] for name in nothing]), label, marker="o")


def _line(axes: Axes, x: Sequence[float], mean_low_high: np.ndarray, label: str, marker: str = "") -> None:
    again = len(axes.lines) >= len(plt.rcParams["axes.prop_cycle"])  # the colours begin again
    style = {"linestyle": "--" if again else "-", **look(label)}
    mean, low, high = mean_low_high
    (line,) = axes.plot(x, mean, marker=marker, markersize=3, label=label, **style)
    axes.fill_between(x, low, high, color=line.get_color(), alpha=0.2)
