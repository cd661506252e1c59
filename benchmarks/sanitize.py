"""Run the GPU kernels under compute-sanitizer, which finds reads and writes out of bounds, of memory that nobody wrote,
and races for shared memory.

    python -m benchmarks.sanitize [--only ssd] [--tools memcheck racecheck initcheck]

compute-sanitizer comes with the CUDA toolkit. Every operator runs forward and backward at sizes that leave no block
full, in a process of its own for each tool; torch's caching allocator is off, so that every tensor has its own bounds.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ssm_kit import ops

TOOLS = ("memcheck", "racecheck", "initcheck")
FAILED = 97
"""Exit status that compute-sanitizer is told to use when it has found something."""
BOUNDS = (0, 1, 40, 67)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape).half().cuda().requires_grad_()  # drawn on the CPU: only our kernels are of interest


def positive(*shape: int) -> Tensor:
    return torch.rand(shape).cuda().requires_grad_()


def selective(run: Callable[..., Any], *time: int) -> Any:
    x, delta, z = (normal(*time, 70) for _ in range(3))
    B, C = (normal(*time, 2, 5) for _ in range(2))
    return run(x, delta, -positive(70, 5), B, C, D=positive(70), z=z, delta_bias=positive(70), delta_softplus=True)


def ssd(run: Callable[..., Any], *time: int) -> Any:
    x, z = (normal(*time, 4, 33) for _ in range(2))
    B, C = (normal(*time, 2, 19) for _ in range(2))
    options = {"D": positive(4), "z": z, "delta_bias": positive(4), "delta_softplus": True}
    return run(x, normal(*time, 4), -positive(4), B, C, **options)


def gated_delta(run: Callable[..., Any], *time: int) -> Any:
    q, k = (F.normalize(normal(*time, 2, 24), dim=-1) for _ in range(2))
    return run(q, k, normal(*time, 4, 40), g=-positive(*time, 4), beta=positive(*time, 4))


def first_order(run: Callable[..., Any], *time: int) -> Any:
    return run(positive(*time, 70), normal(*time, 70))


def convolution(run: Callable[..., Any], *time: int) -> Any:
    return run(normal(*time, 70), positive(70, 4), bias=positive(70), activation="silu")


OPERATORS: dict[str, tuple[Callable[..., Any], Callable[..., Any], tuple[int, ...] | None]] = {
    "first_order_scan": (first_order, ops.first_order_scan, None),
    "causal_conv1d": (convolution, ops.causal_conv1d, (3, 70)),
    "selective_scan": (selective, ops.selective_scan, (70, 5)),
    "ssd": (ssd, ops.ssd, (4, 33, 19)),
    "gated_delta_rule": (gated_delta, ops.gated_delta_rule, (4, 24, 40)),
}
"""What to call, with which tensors; and the shape of a state, where sequences can be packed."""


def exercise(operator: str) -> None:
    """An operator's kernels once: without and with packed sequences, forward and backward."""
    call, run, state = OPERATORS[operator]
    _, length = time = (2, BOUNDS[-1])
    calls = [partial(run, backend="cuda")]
    if state is not None:
        packed = {"cu_seqlens": torch.tensor(BOUNDS).cuda(), "initial_state": positive(len(BOUNDS) - 1, *state)}
        calls.append(partial(run, backend="cuda", **packed))
    for batch, function in zip((time[0], 1), calls, strict=False):
        h, final = call(partial(function, return_final_state=True), batch, length)
        (h.float().mean() + final.mean()).backward()
    torch.cuda.synchronize()


def sanitized(tool: str, operator: str, log: Path) -> bool:
    """Did the tool run through without a finding? What it printed is in the log."""
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", str(FAILED)]
    if tool == "memcheck":  # cuda.core asks the driver for functions that it may not have: no error of a kernel
        command += ["--report-api-errors", "no"]
    command += [sys.executable, "-m", "benchmarks.sanitize", "--exercise", operator]
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    with log.open("w") as output:
        return subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment).returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(OPERATORS), default=list(OPERATORS))
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--logs", type=Path, help="folder for what the tools print; without it a temporary one")
    parser.add_argument("--exercise", choices=list(OPERATORS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.exercise:
        exercise(options.exercise)
        return
    if shutil.which("compute-sanitizer") is None:
        raise SystemExit("compute-sanitizer is not on the PATH: it comes with the CUDA toolkit")
    folder = options.logs or Path(tempfile.mkdtemp(prefix="sanitize-"))
    folder.mkdir(parents=True, exist_ok=True)
    findings = 0
    for tool in options.tools:
        for operator in options.only:
            log = folder / f"{tool}-{operator}.log"
            clean = sanitized(tool, operator, log)
            findings += not clean
            print(f"{tool:10s} {operator:18s} {'clean' if clean else f'see {log}'}", flush=True)
    raise SystemExit(f"{findings} of the runs have findings" if findings else 0)


if __name__ == "__main__":
    main()
