"""The operators on the CPU, forward and backward: time and peak memory beside other implementations, and their growth.

    python -m benchmarks.cpu [--only selective_scan] [--threads 2]

All contenders of a row run in turns in this process; medians are printed, and the fastest runs where growth is fitted.
Peak memory is measured in a process of its own for each. To add an operator, write a module with a list CASES (see
`benchmarks.case`) and name it in MODULES.
"""

import argparse
import importlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterator

import torch

from benchmarks.case import Case, Contender
from benchmarks.measure import exponent, growth, peak_memory, times

MODULES = ("benchmarks.scans", "benchmarks.matrices")
SMALL = 64
"""Length of the run that warms up before a measurement of memory."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="an operator's name")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--memory", nargs=3, metavar=("CASE", "CONTENDER", "LENGTH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory:
        print(_memory_here(*map(int, options.memory)))
        return
    print(f"torch {torch.__version__}, Python {platform.python_version()}, {options.threads} threads; float32")
    for index, case in enumerate(cases()):
        if options.only in (None, case.operator):
            rows = _compare(index, case, options.threads) if case.lengths else _grow(index, case, options.threads)
            print(f"\n{case.operator}, {case.size}, forward + backward")
            for row in rows:
                print(row, flush=True)


def cases() -> list[Case]:
    return [case for module in MODULES for case in importlib.import_module(module).CASES]


def _compare(index: int, case: Case, threads: int) -> Iterator[str]:
    yield f"{'L':>6}  {'':<20}{'ms':>10}{'MB':>8}{'time':>10}{'memory':>10}"
    for length in case.lengths:
        here = [contender for contender in case.contenders if contender.takes_part(length)]
        seconds = times(here, case.make(length))
        peaks = {contender.name: memory(index, case, contender, length, threads) for contender in here}
        ours = case.contenders[0].name
        for name in seconds:
            ratios = f"{seconds[name] / seconds[ours]:>9.1f}×{peaks[name] / peaks[ours]:>9.1f}×"
            yield f"{length:>6}  {name:<20}{seconds[name] * 1e3:>10.1f}{peaks[name] / 1e6:>8.0f}{ratios}"


def _grow(index: int, case: Case, threads: int) -> Iterator[str]:
    ours = case.contenders[0]
    yield f"{'L':>6}  {'':<20}{'ms':>10}{'MB':>8}"
    seconds = growth(ours, [case.make(length) for length in case.growth])
    peaks = [memory(index, case, ours, length, threads) for length in case.growth]
    for length, second, peak in zip(case.growth, seconds, peaks, strict=True):
        yield f"{length:>6}  {ours.name:<20}{second * 1e3:>10.1f}{peak / 1e6:>8.1f}"
    powers = [exponent(case.growth, values) for values in (seconds, peaks)]
    yield f"        grows as L to the power of {powers[0]:.2f} in time, {powers[1]:.2f} in memory"


def memory(index: int, case: Case, contender: Contender, length: int, threads: int) -> int:
    """Peak memory of one contender, in bytes, measured in a fresh process."""
    place = [str(index), str(case.contenders.index(contender)), str(length)]
    command = [sys.executable, "-m", "benchmarks.cpu", "--threads", str(threads), "--memory", *place]
    # Freed blocks go back to the system at once: else a pass fills holes that an earlier one left, and seems smaller.
    allocator = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | allocator)
    return int(done.stdout)


def _memory_here(index: int, contender: int, length: int) -> int:
    case = cases()[index]
    return peak_memory(case.contenders[contender], case.make(length), case.make(SMALL))


if __name__ == "__main__":
    main()
