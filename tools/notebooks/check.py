"""What must hold in a notebook before it is published; each rule returns its complaints."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from .normalise import VIEW, widget_models

MACHINE_PATH = re.compile(r"(/(home|root|tmp|work|Users|opt)/[^\s\"'<>)]*|[A-Z]:\\Users\\[^\s\"'<>)]*)")


def texts(output: NotebookNode) -> Iterator[str]:
    """All text of an output: streams and every textual MIME type."""
    for value in [output.get("text", ""), *output.get("data", {}).values()]:
        if isinstance(value, str):
            yield value


def not_executed(index: int, cell: NotebookNode) -> Iterator[str]:
    if cell.cell_type == "code" and cell.source.strip() and cell.execution_count is None:
        yield f"cell {index} has not been executed"


def failed(index: int, cell: NotebookNode) -> Iterator[str]:
    for output in cell.get("outputs", []):
        if output.output_type == "error":
            yield f"cell {index} raised {output.ename}: {output.evalue}"
        if output.get("name") == "stderr":
            yield f"cell {index} wrote to stderr: {output.text.strip()[:200]}"


def machine_paths(index: int, cell: NotebookNode) -> Iterator[str]:
    for output in cell.get("outputs", []):
        for match in (m for text in texts(output) for m in MACHINE_PATH.finditer(text)):
            yield f"cell {index} shows a path of this machine: {match[0]}"


def lost_widgets(index: int, cell: NotebookNode, models: dict[str, Any]) -> Iterator[str]:
    for output in cell.get("outputs", []):
        view = output.get("data", {}).get(VIEW)
        if view and view["model_id"] not in models:
            yield f"cell {index} shows widget {view['model_id']}, whose state is not stored"


def complaints(nb: NotebookNode, path: Path) -> list[str]:
    """Everything wrong with a notebook, one line each; empty when it may be published."""
    models = widget_models(nb)
    found: list[str] = []
    for index, cell in enumerate(nb.cells):
        for rule in (not_executed, failed, machine_paths):
            found += rule(index, cell)
        found += lost_widgets(index, cell, models)
    return [f"{path}: {line}" for line in found]
