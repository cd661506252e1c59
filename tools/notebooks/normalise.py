"""Remove from an executed notebook whatever differs between two runs of the same code, but for marked timings."""

import hashlib
import json
import re
from typing import Any

import nbformat
from nbformat import NotebookNode

STATE = "application/vnd.jupyter.widget-state+json"
VIEW = "application/vnd.jupyter.widget-view+json"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
Models = dict[str, Any]  # widget models by id, in the order of their creation


def widget_models(nb: NotebookNode) -> Models:
    """The widget models stored in a notebook; empty if there are none."""
    return nb.metadata.get("widgets", {}).get(STATE, {}).get("state", {})


def new_ids(stem: str, models: Models) -> dict[str, str]:
    """Old model id to new: a hash of the notebook's name and the order of creation instead of a random number."""
    return {old: hashlib.md5(f"{stem}:{i}".encode()).hexdigest() for i, old in enumerate(models)}


def rename(value: Any, ids: dict[str, str]) -> Any:
    """The JSON value with every model id replaced."""
    if not ids:
        return value
    pattern = re.compile("|".join(map(re.escape, ids)))
    return json.loads(pattern.sub(lambda match: ids[match[0]], json.dumps(value)))


def without_defaults(models: Models) -> Models:
    """Models whose layouts and styles keep only what is set: None is every default there."""
    styling = ("LayoutModel", "StyleModel")
    return {
        key: {**model, "state": {k: v for k, v in model["state"].items() if v is not None}}
        if model["model_name"].endswith(styling)
        else model
        for key, model in models.items()
    }


def normalised_models(stem: str, models: Models) -> Models:
    """Models with deterministic ids and without defaults."""
    return rename(without_defaults(models), new_ids(stem, models))


def merged(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Outputs in which what a cell prints is one piece: where the pieces part depends on the clock."""
    kept: list[NotebookNode] = []
    for output in outputs:
        if kept and output["output_type"] == "stream" == kept[-1]["output_type"] and output["name"] == kept[-1]["name"]:
            kept[-1]["text"] += output["text"]
        else:
            kept.append(output)
    return kept


def normalise(nb: NotebookNode, stem: str) -> NotebookNode:
    """The notebook with deterministic widget ids, cell ids and metadata."""
    models = widget_models(nb)
    outputs = rename([merged(cell.get("outputs", [])) for cell in nb.cells], new_ids(stem, models))
    cells = []
    for index, (cell, shown) in enumerate(zip(nb.cells, outputs, strict=True)):
        kept = {k: v for k, v in cell.metadata.items() if k in ("tags", "jupyter", "mystnb")}
        cell = {**cell, "id": f"{stem[:40]}-{index:03d}".replace("_", "-"), "metadata": kept}
        cells.append({**cell, "outputs": shown} if cell["cell_type"] == "code" else cell)
    metadata: dict[str, Any] = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    if models:
        state = {"version_major": 2, "version_minor": 0, "state": normalised_models(stem, models)}
        metadata["widgets"] = {STATE: state}
    return nbformat.from_dict({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})
