"""python -m tools.notebooks [--check] [FILE...]: execute notebooks in place, or only verify them."""

import argparse
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from .check import complaints
from .normalise import normalise

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SLOW = 10.0  # seconds: a cell that takes longer is reported


class Progress:
    """One line that counts the cells, and a line for each slow cell."""

    def __init__(self, path: Path, total: int) -> None:
        self.path, self.total, self.started = path, total, 0.0

    def begin(self, cell: NotebookNode, cell_index: int) -> None:
        self.started = time.perf_counter()
        if sys.stdout.isatty():
            print(f"\r{self.path.name}: cell {cell_index + 1} of {self.total}", end="", flush=True)

    def end(self, cell: NotebookNode, cell_index: int, execute_reply: object) -> None:
        seconds = time.perf_counter() - self.started
        if seconds > SLOW:
            print(f"\r{self.path.name}: cell {cell_index} took {seconds:.1f} s: {cell.source.splitlines()[0]}")


def execute(path: Path) -> NotebookNode:
    """Run a notebook from its own folder and return it normalised; the file is left as it was."""
    nb = nbformat.read(path, 4)
    nb.metadata.pop("widgets", None)
    progress = Progress(path, len(nb.cells))
    client = NotebookClient(
        nb,
        timeout=300,
        kernel_name="python3",
        record_timing=False,
        extra_arguments=["--log-level=40"],  # else a warning about unencrypted local ports for every notebook
        resources={"metadata": {"path": str(path.parent)}},
        on_cell_start=progress.begin,
        on_cell_executed=progress.end,
    )
    client.execute()
    return normalise(nb, path.stem)


def refresh(path: Path) -> list[str]:
    """Execute a notebook and save it, unless something is wrong with it."""
    started = time.perf_counter()
    try:
        nb = execute(path)
    except CellExecutionError as error:
        return [f"{path}: {error}"]
    if found := complaints(nb, path):
        return found
    nbformat.write(nb, path)
    print(f"\r{path.name}: {len(nb.cells)} cells in {time.perf_counter() - started:.1f} s")
    return []


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.notebooks", description=__doc__)
    parser.add_argument("--check", action="store_true", help="verify only: execute nothing, change nothing")
    parser.add_argument("files", nargs="*", type=Path, help="notebooks (all chapters if none is named)")
    options = parser.parse_args()
    found: list[str] = []
    for path in options.files or sorted(NOTEBOOKS.glob("*.ipynb")):
        found += complaints(nbformat.read(path, 4), path) if options.check else refresh(path.resolve())
    print(*found, sep="\n", file=sys.stderr)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
