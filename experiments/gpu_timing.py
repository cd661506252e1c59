"""How the scripts that time GPU kernels do it, and how they compare results."""

from collections.abc import Callable
from typing import Any

import torch
from triton.testing import do_bench, do_bench_cudagraph

GRAPH = "CUDA graph replays (the host does not count), 400 ms a point; median, 10th and 90th percentile"
EAGER = "CUDA events around eager calls (the host's launches count), 400 ms a point; median, 10th and 90th percentile"


def milliseconds(function: Callable[[], Any], timing: str = GRAPH) -> list[float]:
    """Median, 10th and 90th percentile of one call, timed as `timing` says: GRAPH or EAGER."""
    bench = do_bench_cudagraph if timing == GRAPH else do_bench
    return [round(float(q), 6) for q in bench(function, rep=400, quantiles=[0.5, 0.1, 0.9])]


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """‖found − expected‖ / ‖expected‖ in float64, to three digits."""
    return float(f"{float((found.double() - expected.double()).norm() / expected.double().norm()):.3g}")
