"""Plots of the byte language models: how they learn, and what they make of text longer than they were trained on."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ssm_kit.results.plots._lines import STYLE, band
from ssm_kit.results.summary import counted

LN2 = float(np.log(2))


def byte_language_model(result: dict[str, Any], against: str = "tokens") -> Figure:
    """Held-out loss in bits a byte against what training took, at every mixer's best rate.

    Left after the first tenth of the steps; right after half of them.

    Args:
        result: `load("byte_language_model")`.
        against: "tokens", or "seconds": tokens divided by the speed that the training step has by itself.

    Raises:
        ValueError: an unknown against.
    """
    if against not in ("tokens", "seconds"):
        raise ValueError(f'against: expected "tokens" or "seconds"; got {against!r}')
    settings, data = result["settings"], result["data"]
    with plt.style.context(STYLE):
        figure, panels = plt.subplots(1, 2)
        for mixer, speed in data["speed"].items():
            runs = [row["held_out"] for row in counted(data) if row["mixer"] == mixer]
            points = np.array(runs, dtype=float)  # (seeds, looks, 2): step and nats
            tokens = points[0, :, 0] * settings["batch_size"] * settings["length"]
            x = tokens / (1e6 if against == "tokens" else speed["tokens_per_second"])
            for axes, part in zip(panels, (0.1, 0.5), strict=True):
                shown = points[0, :, 0] >= part * settings["steps"]
                band(axes, list(x[shown]), points[:, shown, 1] / LN2, mixer)
        spent = "million bytes read" if against == "tokens" else f"seconds, {_machine(result)}"
        panels[0].set(xlabel=spent, ylabel="held-out loss, bits a byte", title="Training")
        panels[1].set(xlabel=spent, title="The second half")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    return figure


def length_generalisation(result: dict[str, Any]) -> Figure:
    """Loss of the same held-out bytes in bits against how much text before them was read.

    Left all of it; right what is below the loss of the worst model with the least text.

    Args:
        result: `load("length_generalisation")`. A context c of its settings stands for c + 1 to 2c bytes; drawn at 2c.
    """
    settings = result["settings"]
    read = [2 * context for context in settings["contexts"]]
    losses = _by_mixer(result["data"]["runs"])
    with plt.style.context(STYLE):
        figure, panels = plt.subplots(1, 2)
        for axes in panels:
            for mixer, by_seed in losses.items():
                band(axes, read, by_seed, mixer)
            axes.axvline(settings["length"], color="0.6", linestyle=":", zorder=0)
            axes.set_xlabel("bytes before it, at most")
            axes.set_xscale("log", base=2)
        lowest = min(by_seed.min() for by_seed in losses.values())
        least_text = max(by_seed[:, 0].max() for by_seed in losses.values())
        panels[0].set(ylabel="loss, bits a byte", title="More text before")
        panels[1].set(ylim=(lowest - 0.02, least_text), title="A closer look")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    return figure


def _by_mixer(runs: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Bits a byte, (seeds, contexts), of every mixer."""
    losses: dict[str, list[list[float]]] = {}
    for row in runs:
        losses.setdefault(row["mixer"], []).append(row["loss"])
    return {mixer: np.array(rows, dtype=float) / LN2 for mixer, rows in losses.items()}


def _machine(result: dict[str, Any]) -> str:
    return result["gpu"] or "one CPU core"
