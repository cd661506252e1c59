"""What one GPU can do at most, the floor that follows for an operator, and how a kernel is timed and checked."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.testing import do_bench, do_bench_cudagraph

from benchmarks.gpu_case import Work

QUANTILES = [0.5, 0.1, 0.9]


@dataclass(frozen=True)
class Ceilings:
    """Rates of this GPU: copied bytes/s (read + written), bfloat16 matrix FLOP/s, exponentials/s."""

    copy: float
    matmul: float
    ex2: float

    def floor(self, work: Work) -> tuple[float, str]:
        """Milliseconds that the work takes at least, and which ceiling says so."""
        seconds = {
            "copy": work.bytes / self.copy, "matmul": work.flops / self.matmul, "ex2": work.special / self.ex2,
        }  # fmt: skip
        by = max(seconds, key=seconds.__getitem__)
        return seconds[by] * 1e3, by


@triton.jit
def _exponentials(x, BLOCK: tl.constexpr, TIMES: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + i)
    for _ in range(TIMES):
        value = tl.exp2(-value)
    tl.store(x + i, value)


def ceilings() -> Ceilings:
    """Measure them: a copy of 4 GiB, a product of 8192³, 2^-x in registers."""
    source = torch.empty(2**32, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    copy = 2 * len(source) / _seconds(lambda: target.copy_(source))
    a, b = torch.randn(2, 8192, 8192, device="cuda").bfloat16()
    matmul = 2 * 8192**3 / _seconds(lambda: a @ b)
    values, times = torch.rand(2**22, device="cuda"), 512
    ex2 = len(values) * times / _seconds(lambda: _exponentials[(len(values) // 4096,)](values, 4096, times))
    return Ceilings(copy, matmul, ex2)


def _seconds(function: Callable[[], Any]) -> float:
    return float(do_bench(function, warmup=50, rep=200, return_mode="median")) / 1e3


def milliseconds(function: Callable[[], Any], calls: int = 1) -> dict[str, Any]:
    """Median, 10th and 90th percentile of one of the `calls` that the function makes, and how they were timed.

    By replays of a CUDA graph, so that the host does not count; by events around eager calls where a graph cannot hold
    the function.
    """
    function()
    try:
        quantiles, timing = do_bench_cudagraph(function, rep=25, quantiles=QUANTILES), "graph"
    except RuntimeError:
        torch.cuda.synchronize()
        quantiles, timing = do_bench(function, warmup=25, rep=150, quantiles=QUANTILES), "events"
    return {"ms": [round(q / calls, 6) for q in quantiles], "timing": timing}


def relative_error(found: Tensor, expected: Tensor) -> float:
    """‖found − expected‖ / ‖expected‖ in float64, to three digits; NaN if either is not finite."""
    found, expected = found.detach().double(), expected.detach().double()
    return float(f"{float((found - expected).norm() / expected.norm()):.3g}")
