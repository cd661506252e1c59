"""Plots of trained models: recall against the state, attention in a hybrid, and lengths beyond the trained one."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ssm_kit.results.plots._lines import STYLE, spread


def recall_capacity(result: dict[str, Any], pairs: int | None = None) -> Figure:
    """Left: accuracy at one number of pairs against bytes of state. Right: the largest of each mixer, by pairs.

    Args:
        result: `load("recall_capacity")`; its models for control are left out.
        pairs: of the left panel; None for the largest number.

    Raises:
        ValueError: a number of pairs that was not tested.
    """
    mixers = _by_label([entry for entry in result["data"]["summary"] if not entry["filled"]], "mixer")
    first = result["data"]["summary"][0]["accuracy"]
    known = [int(test.split()[0]) for test in first if test.endswith(" pairs")]
    pairs = max(known) if pairs is None else pairs
    if pairs not in known:
        raise ValueError(f"pairs: expected one of {', '.join(map(str, known))}; got {pairs}")
    with plt.style.context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, sharey=True)
        for name, entries in mixers.items():
            sizes = [entry["state_bytes"] for entry in entries]
            spread(left, sizes, [entry["accuracy"][f"{pairs} pairs"] for entry in entries], name)
            spread(right, known, [entries[-1]["accuracy"][f"{n} pairs"] for n in known], name)
        left.set(xscale="log", xlabel="bytes of state", ylabel="accuracy", title=f"{pairs} pairs")
        right.set(xscale="log", xlabel="pairs", title="the largest state of each", ylim=(0, 1.05))
        right.set_xticks(known, [str(n) for n in known])
        right.minorticks_off()
        figure.legend(*left.get_legend_handles_labels(), loc="outside right center")
    return figure


def hybrid_fraction(result: dict[str, Any]) -> Figure:
    """Recall (mean over numbers of pairs) and loss on held-out text against the share of attention, by placement."""
    with plt.style.context(STYLE):
        figure, panels = plt.subplots(1, 2)
        for axes, (task, entries) in zip(panels, _by_label(result["data"]["summary"], "task").items(), strict=True):
            stacks = _by_label(entries, "placement")
            pure = [entry for entry in entries if entry["attention"] in (0, entry["layers"])]
            for placement, some in stacks.items():
                line = sorted({entry["attention"]: entry for entry in [*some, *pure]}.items())
                shares = [100 * count / entry["layers"] for count, entry in line]
                spread(axes, shares, [_score(task, entry) for _, entry in line], placement)
            axes.set(xlabel="attention, % of the mixers", title=task)
        panels[0].set(ylabel="accuracy", ylim=(0, 1.05))
        panels[1].set_ylabel("loss on held-out bytes, nats")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    return figure


def selective_copying(result: dict[str, Any]) -> Figure:
    """Tokens and whole sequences that each mixer copies, by length of the test; the dotted line is that trained on."""
    return _by_length(result, {"accuracy": "Tokens copied", "exact": "Sequences copied whole"})


def induction_heads(result: dict[str, Any]) -> Figure:
    """Accuracy of each mixer against the length of the test; the dotted line is the length trained on."""
    return _by_length(result, {"accuracy": "Induction heads"})


def _by_length(result: dict[str, Any], titles: dict[str, str]) -> Figure:
    """A panel for each measure."""
    with plt.style.context(STYLE):
        figure, panels = plt.subplots(1, len(titles), sharey=True, squeeze=False)
        for axes, (measure, title) in zip(panels[0], titles.items(), strict=True):
            for entry in result["data"]["summary"]:
                tests = {int(test): found for test, found in entry[measure].items() if test.isdigit()}
                spread(axes, list(tests), list(tests.values()), entry["mixer"])
            axes.axvline(result["settings"]["trained_on"], color="0.6", linestyle=":", zorder=0)
            axes.set(xscale="log", xlabel="length of the test", ylim=(0, 1.05), title=title)
            axes.set_xticks(list(tests), [f"{n // 1024}k" if n >= 1024 else str(n) for n in tests])
            axes.minorticks_off()
        panels[0, 0].set_ylabel("share that is right")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right center")
    return figure


def _by_label(entries: list[dict[str, Any]], label: str) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        groups.setdefault(entry[label], []).append(entry)
    return groups


def _score(task: str, entry: dict[str, Any]) -> dict[str, float] | None:
    """What a stack's quality is drawn by: the loss on held-out text, or the mean accuracy over all numbers of pairs."""
    if task == "text":
        return entry["loss"]["held out"]
    found = [value for test, value in entry["accuracy"].items() if test.endswith(" pairs")]
    return {name: float(np.mean([value[name] for value in found])) for name in ("mean", "low", "high")}
