"""Plots of what generation costs: time of a token, tokens a second, bytes, prompts."""

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssm_kit.results.plots._lines import STYLE
from ssm_kit.results.plots._models import look


def decoding(result: dict[str, Any]) -> Figure:
    """Four panels against the context: bytes held, time of a token, tokens a second with a full GPU, prefill.

    Args:
        result: `load("decoding")`. Where a model has attention, the fastest of its ways counts.
    """
    with plt.style.context(STYLE):
        figure, panels = plt.subplots(2, 2, figsize=(7.2, 5.6), sharex=True)
        held, step, full, prompt = panels.flat
        for name, entry in result["data"].items():
            context = [point["context"] for point in entry["one"]]
            drawn = {"marker": "o", "label": name, **look(name)}
            held.plot(context, [point["bytes"] / 1e9 for point in entry["one"]], **drawn)
            step.plot(context, [fastest(point) for point in entry["one"]], **drawn)
            full.plot(context, [1e3 * point["batch"] / fastest(point) for point in entry["most"]], **drawn)
            times = [sorted(point["milliseconds"])[1] for point in entry["prefill"]]  # of three: the median
            prompt.plot([point["prompt"] for point in entry["prefill"]], times, **drawn)
        _name(held, "Memory of one sequence", "GB")
        _name(step, "One token, one sequence", "ms")
        step.set(yscale="linear", ylim=(0, None))
        _name(full, "As many sequences as fit", "tokens a second")
        _name(prompt, "Reading the prompt", "ms")
        for panel in panels[1]:
            panel.set_xlabel("tokens of context")
        figure.legend(*held.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def fastest(point: dict[str, Any]) -> float:
    """Milliseconds of a step: the median of the fastest way of attention that was tried."""
    return min(median for median, *_ in point["milliseconds"].values())


def _name(axes: Axes, title: str, unit: str) -> None:
    axes.set(xscale="log", yscale="log", title=title, ylabel=unit)
    axes.set_xscale("log", base=2)
