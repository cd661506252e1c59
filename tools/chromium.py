"""A Chromium for the tests: an installed one, else Playwright's own, else Debian's where we may install it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge", "msedge")
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
)
ARGUMENTS = [  # no sandbox in containers, no graphics card, no traffic of the browser's own
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def installed() -> str | None:
    """Path of a browser that is on this machine (the variable CHROMIUM names one outright)."""
    found = [os.environ.get("CHROMIUM"), *map(shutil.which, NAMES), *(p for p in PLACES if Path(p).exists())]
    return next((path for path in found if path), None)


def succeeds(*command: str) -> bool:
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def may_use_apt() -> bool:
    return shutil.which("apt-get") is not None and hasattr(os, "geteuid") and os.geteuid() == 0


def find() -> str | None:
    """Path of a Chromium, installing one if need be; None means the one that Playwright manages.

    Raises:
        RuntimeError: there is none and none could be installed.
    """
    if path := installed():
        return path
    if succeeds(sys.executable, "-m", "playwright", "install", "chromium"):
        return None
    if may_use_apt() and succeeds("apt-get", "update") and succeeds("apt-get", "install", "-y", "chromium"):
        return installed()
    raise RuntimeError("No Chromium found and none could be installed: install one, or set CHROMIUM to its path")


if __name__ == "__main__":
    print(find() or "Playwright's own Chromium")
