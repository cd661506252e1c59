"""Build the book's browser code: `python -m tools.runtime [--check]`."""

import sys
from pathlib import Path

from . import npm

RUNTIME = Path(__file__).parents[1] / "book" / "runtime"


def main(arguments: list[str]) -> int:
    return npm.build(RUNTIME, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
