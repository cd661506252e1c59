"""What holds our GPU kernels back: the time of every launch and the units that it keeps busy, by Nsight Compute.

    python -m benchmarks.gpu_profile [--only selective_scan] [--logs FOLDER]

ncu comes with the CUDA toolkit and needs leave to read the GPU's counters. Every row of `benchmarks.gpu` runs once,
forward and backward, after a call that compiles. Counters are read in several passes, in each of which a launch runs
alone and with empty caches: its time is not that of the benchmark.
"""

import argparse
import csv
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import both_passes
from benchmarks.gpu_case import Case
from benchmarks.gpu_cases import PARTS

SECTIONS = ("SpeedOfLight", "ComputeWorkloadAnalysis", "SchedulerStats", "WarpStateStats", "Occupancy")
SHARES = {
    "memory": r"(gpu__dram_|dram__)throughput\.avg\.pct_of_peak_sustained_elapsed",
    "issue slots": r"sm(sp)?__(inst_issued|issue_active)\.avg\.pct_of_peak_sustained_active",
    "warps": r"sm__warps_active\.avg\.pct_of_peak_sustained_active",
}
"""Percent of what the GPU can do, by the counter's name; ncu's versions differ in it."""
TIME = "gpu__time_duration.sum"
PIPES = re.compile(r"sm__(?:inst_executed_)?pipe_(\w+?)(?:_cycles_active)?\.avg\.pct_of_peak_sustained_active")
STALLS = re.compile(r"smsp__average_warps_issue_stalled_(\w+)_per_issue_active\.ratio")
MOST = 3


def exercise(part: str) -> None:
    """Every case once under the profiler; a step has no backward pass."""
    for case in PARTS[part]():
        call = calling(case)
        call()
        torch.cuda.synchronize()
        torch.cuda.profiler.start()
        call()
        torch.cuda.synchronize()
        torch.cuda.profiler.stop()
        torch.cuda.empty_cache()


def calling(case: Case) -> Callable[[], Any]:
    """Our contender as it is timed."""
    (ours,) = (contender for contender in case.contenders if contender.name == "ssm_kit")
    tensors = ours.arrange(case.make(False))
    return partial(ours.run, **tensors) if case.backward is None else both_passes(ours, tensors, case.dtype)


def launches(text: str) -> list[dict[str, str]]:
    """The rows of ncu's raw CSV page, by the names of its columns, the time with its unit, which the first row has.

    What the program itself prints before is passed over.
    """
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    units, *rows = [*csv.DictReader(lines[start:])] or [{}]
    return [row | {TIME: f"{row[TIME]} {units[TIME]}"} for row in rows]


def number(value: str | None) -> float | None:
    """A counter's value; None where it has none."""
    try:
        return float((value or "").replace(",", ""))
    except ValueError:
        return None


def summary(launch: dict[str, str]) -> dict[str, Any]:
    """What a reader looks at: the shares of the peak in percent, the busiest pipes, what warps wait for."""
    found: dict[str, Any] = {"kernel": short(launch["Kernel Name"])}
    for name, pattern in SHARES.items():
        values = [number(value) for column, value in launch.items() if re.fullmatch(pattern, column or "")]
        found[name] = next((value for value in values if value is not None), None)
    return found | {"pipes": largest(launch, PIPES), "waits for": largest(launch, STALLS)}


def short(name: str) -> str:
    """A kernel's name without its type, its arguments, and the templates that fill torch's names."""
    return re.split(r"[<(]", name.replace("<unnamed>::", "").removeprefix("void "))[0]


def largest(launch: dict[str, str], pattern: re.Pattern[str]) -> list[tuple[str, float]]:
    """The counters of one kind with the largest values."""
    found = {}
    for column, value in launch.items():
        match, counted = pattern.fullmatch(column or ""), number(value)
        if match and counted is not None and match[1] != "selected":
            found[match[1]] = counted
    return sorted(found.items(), key=lambda item: -item[1])[:MOST]


def line(launch: dict[str, str]) -> str:
    """One launch as text."""
    found = summary(launch)
    shares = ", ".join(f"{name} {found[name]:.0f} %" for name in SHARES if found[name] is not None)
    pipes = ", ".join(f"{name} {value:.0f} %" for name, value in found["pipes"])
    waits = ", ".join(f"{name} {value:.1f}" for name, value in found["waits for"])
    return f"{found['kernel']:32s} {launch[TIME]:>12s}  {shares}  | pipes: {pipes}  | warps wait for: {waits}"


def profiled(part: str, log: Path | None) -> str:
    """ncu's raw page for one part."""
    command = ["ncu", "--clock-control", "none", "--profile-from-start", "off", "--csv", "--page", "raw"]
    command += [argument for section in SECTIONS for argument in ("--section", section)]
    command += [sys.executable, "-m", "benchmarks.gpu_profile", "--exercise", part]
    done = subprocess.run(command, capture_output=True, text=True)
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(done.stdout + done.stderr)
    if done.returncode:
        raise SystemExit(f"{part}: ncu ended with {done.returncode}\n{(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--logs", type=Path, help="folder for all that ncu prints")
    parser.add_argument("--exercise", choices=list(PARTS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.exercise:
        exercise(options.exercise)
        return
    if shutil.which("ncu") is None:
        raise SystemExit("ncu is not on the PATH: it comes with the CUDA toolkit")
    for part in options.only:
        print(part, *map(line, launches(profiled(part, options.logs and options.logs / f"{part}.csv"))), sep="\n")


if __name__ == "__main__":
    main()
