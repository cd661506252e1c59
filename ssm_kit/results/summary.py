"""From the raw rows of a study to one entry per architecture, mean and extremes over seeds; and which rows count."""

from typing import Any

MEASURES = ("accuracy", "exact", "loss")
VARYING = {"stage", "seed", "learning_rate", *MEASURES}
"""What differs between two rows of one architecture."""


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry for each architecture, in the order of the rows.

    Args:
        rows: one for each training run, as `experiments/study.py` writes them: what tells architectures apart, and
            stage, seed, learning_rate, and measures: accuracy {test: share of right answers}, loss {test: nats, or None
            where it is no number}, and in some studies exact {test: share of examples without a mistake}. Rows of the
            stage "search" chose the learning rate; only those of the stage "final" count.

    Returns:
        what the rows of an architecture share, and for each measure {test: {"mean", "low", "high"}}, None for a test
        whose loss was no number with some seed.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["stage"] == "final":
            groups.setdefault(repr(_shared(row)), []).append(row)
    return [
        _shared(group[0]) | {name: _spread([row[name] for row in group]) for name in MEASURES if name in group[0]}
        for group in groups.values()
    ]


def counted(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Of the rows of `byte_language_model` those to report: trained for all steps, at their mixer's chosen rate.

    Args:
        data: of the result: runs, and learning_rate {mixer: the chosen one}.
    """
    rates = data["learning_rate"]
    return [row for row in data["runs"] if row["stage"] == "final" and row["learning_rate"] == rates[row["mixer"]]]


def _shared(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in VARYING}


def _spread(by_seed: list[dict[str, float | None]]) -> dict[str, dict[str, float] | None]:
    spread: dict[str, dict[str, float] | None] = {}
    for test in by_seed[0]:
        found = [values[test] for values in by_seed]
        numbers = [value for value in found if value is not None]
        whole = len(numbers) == len(found)
        mean = round(sum(numbers) / len(found), 5)
        spread[test] = {"mean": mean, "low": min(numbers), "high": max(numbers)} if whole else None
    return spread
