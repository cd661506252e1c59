"""What measurements ask of the machine that they run on: a command line, the record of how they were made, a file."""

import argparse
import datetime
import importlib.metadata
import json
import re
import subprocess
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ssm_kit import results
from ssm_kit.lab.checkpoint import write_atomically

SEED = 0


def commit(given: str | None) -> str:
    """The code's commit: the one that was given, otherwise the one that git knows.

    Asked for before anything is measured: a result without its commit is refused, and hours may have gone into it.

    Raises:
        SystemExit: neither is one.
    """
    try:
        command = ["git", "rev-parse", "HEAD"]
        found = given or subprocess.check_output(command, cwd=Path(__file__).parent, text=True).strip()
    except (OSError, subprocess.CalledProcessError):
        raise SystemExit("commit: git does not know it here; pass --commit") from None
    if not re.fullmatch(results.COMMIT, found):
        raise SystemExit(f"commit: expected 7 to 40 hexadecimal digits; got {found!r}")
    return found


def arguments(what: str, *more: str) -> argparse.ArgumentParser:
    """The command line of a measurement: --out, --commit, and those of `OPTIONS` that are named."""
    parser = argparse.ArgumentParser(description=what)
    for name in ("out", "commit", *more):
        parser.add_argument(f"--{name}", **OPTIONS[name])
    return parser


def _device(given: str) -> str:
    return given or ("cuda" if torch.cuda.is_available() else "cpu")


# argparse gives a default that is a string to `type`, as if the reader had typed it.
OPTIONS: dict[str, dict[str, Any]] = {
    "out": {"type": Path, "help": "the result's JSON file"},
    "commit": {"type": commit, "default": "", "help": "the code's commit, where git is not at hand"},
    "device": {"type": _device, "default": "", "help": "cuda or cpu; a GPU if there is one"},
    "smoke": {"action": "store_true", "help": "a small size, for a look and for tests"},
    "folder": {"type": Path, "help": "one JSON file for each finished part: the next call goes on with the others"},
    "workers": {"type": int, "default": 1, "help": "processes that share the machine"},
    "lanes": {"type": int, "default": 1, "help": "runs that a process advances in turn"},
    "minutes": {"type": float, "default": float("inf"), "help": "stop then; the next call goes on"},
}


def provenance(commit: str, device: str) -> dict[str, Any]:
    """Where and when, in the words of `ssm_kit.results.PROVENANCE`."""
    on_gpu = device.startswith("cuda")
    return {
        "commit": commit,
        "date": datetime.date.today().isoformat(),
        "gpu": torch.cuda.get_device_name(device) if on_gpu else None,
        "torch": torch.__version__,
        "triton": _version("triton") if on_gpu else None,
    }


def on_any_gpu(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The provenance of runs whose times do not count, as those that only learn: `gpu` names all kinds of GPU in each.

    Runs on a CPU, which compute in other precisions, stay apart: `result` refuses them beside the others.
    """
    gpus = {one["gpu"] for one in made}
    return made if None in gpus else [one | {"gpu": ", ".join(sorted(gpus))} for one in made]


def result(script: str, what: str, made: list[dict[str, Any]], parts: dict[str, Any]) -> dict[str, Any]:
    """A result as the schema wants it.

    Args:
        script, what: as in the schema.
        made: the provenance of everything that the result is made of; the newest stands for all.
        parts: seeds, wall_s, settings and data.

    Raises:
        ValueError: made on different machines or versions.
    """
    for entry in ("gpu", "torch", "triton"):
        if len(found := {one[entry] for one in made}) > 1:
            raise ValueError(f"{script}: expected runs of one {entry}; got {sorted(map(str, found))}")
    return {"what": what, "script": script, **max(made, key=lambda one: one["date"]), **parts}


def write(out: Path | None, result: dict[str, Any]) -> None:
    """Write a result where there is a file to write, then check it: what took hours is kept, wrong or not.

    Raises ValueError if it does not follow the schema.
    """
    if out is not None:
        write_atomically(out, json.dumps(result, indent=1) + "\n")
    results.validate(result, result["script"])


def run(
    script: str,
    what: str,
    measure: Callable[[], tuple[dict, dict]],
    *,
    device: str,
    smoke: Callable[[], tuple[dict, dict]] | None = None,
    seeds: tuple[int, ...] = (SEED,),
) -> None:
    """Run `measure`, which returns (settings, data), and write the result where --out says.

    With --smoke run `smoke` instead: the same at a size for two CPU cores and a minute, which need not be stored.
    """
    parser = arguments(what, *(["smoke"] if smoke else []))
    options = parser.parse_args()
    if options.out is None and smoke is None:
        parser.error("the following arguments are required: --out")
    torch.manual_seed(SEED)
    start = time.perf_counter()
    settings, data = smoke() if smoke is not None and options.smoke else measure()
    parts = {"seeds": list(seeds), "wall_s": round(time.perf_counter() - start, 1), "settings": settings, "data": data}
    write(options.out, result(script, what, [provenance(options.commit, device)], parts))


def wait(device: str) -> None:
    """Until all work on the device is done."""
    if device == "cuda":
        torch.cuda.synchronize()


def take_gpu(place: int, device: str) -> None:
    """Let this process, the `place`-th of several, work on one of the machine's GPUs: they are dealt out in turn."""
    if device == "cuda":
        torch.cuda.set_device(place % torch.cuda.device_count())


def only_kernels() -> None:
    """A slower operator in place of a GPU kernel is an error from now on: what is measured must be the kernels."""
    warnings.filterwarnings("error", message=".*no GPU kernel", category=RuntimeWarning)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
