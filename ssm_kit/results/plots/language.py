"""Plots of the byte language models: how they learn, and what they make of text longer than they were trained on."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ssm_kit.results.plots._lines import STYLE, band
from ssm_kit.results.plots._models import cycle

LN2 = float(np.log(2))


def byte_language_model(result: dict[str, Any], against: str = "tokens") -> Figure:
    """Held-out loss in bits a byte against what training took, after its first tenth, at every mixer's best rate.

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
        figure, axes = plt.subplots()
        axes.set_prop_cycle(cycle(data["speed"]))
        for mixer, speed in data["speed"].items():
            runs = [row["held_out"] for row in data["runs"] if (row["mixer"], row["stage"]) == (mixer, "final")]
            points = np.array(runs, dtype=float)  # (seeds, looks, 2): step and nats
            points = points[:, points[0, :, 0] >= settings["steps"] / 10]
            tokens = points[0, :, 0] * settings["batch_size"] * settings["length"]
            x = tokens if against == "tokens" else tokens / speed["tokens_per_second"]
            band(axes, list(x), points[:, :, 1] / LN2, mixer)
        axes.set(xscale="log", ylabel="held-out loss, bits a byte")
        axes.set_xlabel("bytes read in training" if against == "tokens" else f"seconds of training, {_machine(result)}")
        axes.set_title("Equal parameters, the same text")
        figure.legend(loc="outside right center")
    return figure


def length_generalisation(result: dict[str, Any]) -> Figure:
    """Loss of the same held-out bytes in bits against how much text before them was read.

    Args:
        result: `load("length_generalisation")`. A context c of its settings stands for c + 1 to 2c bytes; drawn at 2c.
    """
    settings, runs = result["settings"], result["data"]["runs"]
    read = [2 * context for context in settings["contexts"]]
    with plt.style.context(STYLE):
        figure, axes = plt.subplots()
        mixers = list(dict.fromkeys(row["mixer"] for row in runs))
        axes.set_prop_cycle(cycle(mixers))
        for mixer in mixers:
            losses = np.array([row["loss"] for row in runs if row["mixer"] == mixer], dtype=float)
            band(axes, read, losses / LN2, mixer)
        axes.axvline(settings["length"], color="0.6", linewidth=1, zorder=0)
        note = axes.text(settings["length"], 1, "trained\nup to here ", ha="right", va="top", size="small")
        note.set_transform(axes.get_xaxis_transform())
        axes.set(xlabel="bytes before it, at most", ylabel="loss, bits a byte")
        axes.set_xscale("log", base=2)
        axes.set_title("The same bytes, with more and more text before them")
        figure.legend(loc="outside right center")
    return figure


def _machine(result: dict[str, Any]) -> str:
    return result["gpu"] or "one CPU core"
