"""Plots of what a scan remembers, and of how it rounds."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ssm_kit.results.plots._lines import STYLE, band


def hippo_memory(result: dict[str, Any], precision: str = "bfloat16") -> Figure:
    """Error of the best linear guess of the input against how long ago it was; one panel for each band of signals.

    Args:
        result: `load("hippo_memory")`.
        precision: what the state is rounded to, "float32" or "bfloat16".

    Raises:
        ValueError: an unknown precision.
    """
    bands = result["data"]
    known = list(next(iter(bands.values())))
    if precision not in known:
        raise ValueError(f"precision: expected one of {', '.join(known)}; got {precision!r}")
    settings, delays = result["settings"], result["settings"]["delays"]
    with plt.style.context(STYLE):
        figure, panels = plt.subplots(1, len(bands), sharey=True, squeeze=False)
        for panel, (signal, tables) in zip(panels[0], bands.items(), strict=True):
            for name, entry in tables[precision].items():
                band(panel, delays, np.array(entry["error"]), name)
            numbers = round(2 * settings["cutoff"][signal] * settings["length"])
            panel.set(title=f"{numbers} numbers into {settings['states']}", xlabel="steps ago", ylim=(0, 1.1))
        panels[0, 0].set_ylabel("error of the best guess,\npart of the signal")
        figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside right center")
    return figure


def scan_precision(result: dict[str, Any], lasting: str = "30 steps") -> Figure:
    """Relative error of a scan's last states against its length; a line ends where numbers stop being finite.

    Args:
        result: `load("scan_precision")`.
        lasting: how long a state lasts: "1000 steps", "30 steps" or "1 step".

    Raises:
        ValueError: an unknown lasting.
    """
    known = list(result["settings"]["middle_step"])
    if lasting not in known:
        raise ValueError(f"lasting: expected one of {', '.join(known)}; got {lasting!r}")
    lengths = result["settings"]["lengths"]
    with plt.style.context(STYLE):
        figure, axes = plt.subplots()
        for way, table in result["data"].items():
            errors = np.array(table[lasting], dtype=float).T  # None becomes nan, which is not drawn
            band(axes, lengths, errors, way)
        axes.set(xscale="log", yscale="log", xlabel="length of the sequence", ylabel="relative error")
        axes.set_title(f"Rounding in a scan whose states last about {lasting}")
        figure.legend(loc="outside right center")
    return figure
