"""What every measurement shares: its command line, its provenance, its file (the schema of `ssm_kit.results`)."""

import argparse
import datetime
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from triton import __version__ as triton_version
from triton.testing import do_bench, do_bench_cudagraph

SEED = 0


GRAPH = "CUDA graph replays (the host does not count), 400 ms a point; median, 10th and 90th percentile"
EAGER = "CUDA events around eager calls (the host's launches count), 400 ms a point; median, 10th and 90th percentile"


def milliseconds(function: Callable[[], Any], timing: str = GRAPH) -> list[float]:
    """Median, 10th and 90th percentile of one call, timed as `timing` says: GRAPH or EAGER."""
    bench = do_bench_cudagraph if timing == GRAPH else do_bench
    return [round(float(q), 6) for q in bench(function, rep=400, quantiles=[0.5, 0.1, 0.9])]


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """‖found − expected‖ / ‖expected‖ in float64, to three digits."""
    return float(f"{float((found.double() - expected.double()).norm() / expected.double().norm()):.3g}")


def run(
    script: str,
    what: str,
    measure: Callable[[], tuple[dict, dict]],
    *,
    smoke: Callable[[], tuple[dict, dict]] | None = None,
    seeds: tuple[int, ...] = (SEED,),
) -> None:
    """Run `measure`, which returns (settings, data), and write the result where --out says.

    With --smoke run `smoke` instead: the same at a size for two CPU cores and a minute, which need not be stored.
    """
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--out", type=Path, required=smoke is None, help="the JSON file to write")
    parser.add_argument("--commit", help="the code's commit, where git is not at hand")
    if smoke is not None:
        parser.add_argument("--smoke", action="store_true", help="a small size, for a look and for tests")
    options = parser.parse_args()
    torch.manual_seed(SEED)
    start = time.perf_counter()
    settings, data = smoke() if smoke is not None and options.smoke else measure()
    result = provenance(script, what, options.commit, time.perf_counter() - start, settings, data, seeds)
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def provenance(
    script: str,
    what: str,
    commit: str | None,
    wall_s: float,
    settings: dict,
    data: Any,
    seeds: tuple[int, ...] = (SEED,),
) -> dict[str, Any]:
    """A measurement made on this machine, with the record of how; `commit` where git is not at hand."""
    on_gpu = torch.cuda.is_available()
    return {
        "what": what,
        "script": script,
        "commit": commit or subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip(),
        "date": datetime.date.today().isoformat(),
        "gpu": torch.cuda.get_device_name() if on_gpu else None,
        "torch": torch.__version__,
        "triton": triton_version if on_gpu else None,
        "seeds": list(seeds),
        "wall_s": round(wall_s, 1),
        "settings": settings,
        "data": data,
    }
