"""Build the figures' bundles: `python -m tools.figures [--check] [view ...]`.

Without a name all views are built. `--check` changes nothing and fails where a committed bundle differs.
"""

import sys
from pathlib import Path

from tools import npm

SRC = Path(__file__).parent.parent / "ssm_kit" / "figures" / "src"


def main(arguments: list[str]) -> int:
    """Run build.mjs with these arguments; returns its exit status."""
    return npm.build(SRC, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
