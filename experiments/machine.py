"""What experiments ask of the machine that they run on."""

import argparse
import datetime
import importlib.metadata
import json
import subprocess
import warnings
from pathlib import Path
from typing import Any

import torch

from ssm_kit import results
from ssm_kit.lab.checkpoint import write_atomically


def wait(device: str) -> None:
    """Until all work on the device is done."""
    if device == "cuda":
        torch.cuda.synchronize()


def only_kernels() -> None:
    """A slower operator in place of a GPU kernel is an error from now on: what is measured must be the kernels."""
    warnings.filterwarnings("error", message=".*no GPU kernel", category=RuntimeWarning)


def arguments(what: str) -> argparse.ArgumentParser:
    """The part of a command line that says where: --smoke, --out, --device, --commit."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--smoke", action="store_true", help="a small size, for a look and for tests")
    parser.add_argument("--out", type=Path, help="the result's JSON file")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--commit", help="the code's commit, where git is not at hand")
    return parser


def provenance(options: argparse.Namespace) -> dict[str, Any]:
    """Where and when, in the words of `ssm_kit.results.PROVENANCE`."""
    on_gpu = options.device == "cuda"
    return {
        "commit": options.commit or subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip(),
        "date": datetime.date.today().isoformat(),
        "gpu": torch.cuda.get_device_name() if on_gpu else None,
        "torch": torch.__version__,
        "triton": importlib.metadata.version("triton") if on_gpu else None,
    }


def write(out: Path | None, script: str, what: str, made: list[dict[str, Any]], parts: dict[str, Any]) -> None:
    """Check a result against the schema and write it.

    Args:
        out: the file; None to check only.
        script, what: as in the schema.
        made: the provenance of everything that the result is made of.
        parts: seeds, wall_s, settings and data.

    Raises:
        ValueError: made on different machines or versions, or not by the schema.
    """
    for entry in ("gpu", "torch", "triton"):
        if len(found := {one[entry] for one in made}) > 1:
            raise ValueError(f"made: expected one {entry}; got {sorted(map(str, found))}")
    newest = max(made, key=lambda one: one["date"])
    result = {"what": what, "script": script, **newest, **parts}
    results.validate(result, script)
    if out is not None:
        write_atomically(out, json.dumps(result, indent=1) + "\n")
