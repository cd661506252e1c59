"""One long sequence on one GPU, and in pieces on several: time and memory of `selective_scan` and `ssd`.

    torchrun --nproc-per-node 2 -m benchmarks.sequence_parallel --out ssm_kit/results/sequence_parallel.json
    torchrun --nproc-per-node 2 -m benchmarks.sequence_parallel --smoke        (CPU)

Every number of GPUs that is a power of two is measured, as far as there are processes. Each point is the median of
several calls by the clock on the wall, of the slowest rank; before it, outputs and gradients of the pieces are compared
with those of the whole. Batch 1, bfloat16; of Mamba 4096 channels and N = 16, of Mamba-2 64 heads of 64 and N = 128.
"""

import functools
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from experiments import machine
from ssm_kit.ops import selective_scan, ssd
from ssm_kit.ops.sequence_parallel import sequence_parallel_selective_scan, sequence_parallel_ssd

WHAT = "Milliseconds and peak bytes of one sequence's scan, on one GPU and in pieces on several"
OPERATORS = {"selective_scan": (selective_scan, sequence_parallel_selective_scan), "ssd": (ssd, sequence_parallel_ssd)}
TIMED = ("x", "delta", "B", "C", "z")
LIMIT = {torch.bfloat16: 1e-2, torch.float32: 1e-4}


class Size(NamedTuple):
    """What is measured: lengths, heads and their width, N of the two operators, calls."""

    lengths: tuple[int, ...]
    heads: int
    width: int
    states: dict[str, int]
    dtype: torch.dtype
    repeats: int


FULL = Size((2**16, 2**18), 64, 64, {"selective_scan": 16, "ssd": 128}, torch.bfloat16, 9)
SMOKE = Size((64,), 2, 4, {"selective_scan": 3, "ssd": 3}, torch.float32, 2)


def inputs(operator: str, length: int, size: Size, device: str) -> dict[str, Tensor]:
    """The same on all ranks."""
    generator = torch.Generator(device).manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device, dtype=size.dtype)

    N, channels = size.states[operator], size.heads * size.width
    if operator == "ssd":
        inner, steps, A = (size.heads, size.width), size.heads, torch.linspace(1, 16, size.heads, device=device)
    else:
        inner, steps, A = (channels,), channels, torch.arange(1.0, N + 1, device=device).repeat(channels, 1)
    tensors = {"x": noise(1, length, *inner), "z": noise(1, length, *inner), "delta": noise(1, length, steps) - 4}
    return tensors | {"B": noise(1, length, 1, N), "C": noise(1, length, 1, N), "A": -A}


def cut(tensors: dict[str, Tensor], rank: int, ranks: int) -> dict[str, Tensor]:
    """A rank's piece, with leaves of its own."""
    parts = {name: t.chunk(ranks, 1)[rank].clone() if name in TIMED else t for name, t in tensors.items()}
    return {name: part.detach().requires_grad_() for name, part in parts.items()}


def differentiate(function: Callable[..., Tensor], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """y and the gradients of what a rank has of its own, where y itself is the gradient of y."""
    y = function(**tensors, delta_softplus=True)
    gradients = torch.autograd.grad(y, [tensors[name] for name in TIMED], y.detach())
    return {"y": y.detach(), **dict(zip(TIMED, gradients, strict=True))}


def check(operator: str, size: Size, rank: int, ranks: int, group: Any, device: str) -> float:
    """The largest relative error of this rank's piece; SystemExit if it is too large for a speed to mean anything."""
    one, many = OPERATORS[operator]
    tensors = inputs(operator, size.lengths[0] // 16, size, device)
    whole = differentiate(one, cut(tensors, 0, 1))
    piece = differentiate(functools.partial(many, group=group), cut(tensors, rank, ranks))
    errors = torch.stack([_error(part, whole[name].chunk(ranks, 1)[rank]) for name, part in piece.items()])
    dist.all_reduce(worst := errors.max(), dist.ReduceOp.MAX, group=group)
    if not worst <= LIMIT[size.dtype]:
        raise SystemExit(f"{operator} on {ranks} ranks: relative error {worst:.2e}; not timed")
    return float(f"{worst:.3g}")


def _error(found: Tensor, expected: Tensor) -> Tensor:
    return (found.double() - expected.double()).norm() / expected.double().norm()


def milliseconds(function: Callable[[], Any], repeats: int, group: Any, device: str) -> float:
    """The median over calls of the slowest rank's time, after one call that warms up."""
    times = []
    for _ in range(1 + repeats):
        dist.barrier(group)
        machine.wait(device)
        start = time.perf_counter()
        function()
        machine.wait(device)
        times.append(time.perf_counter() - start)
    slowest = torch.tensor(times[1:], device=device)
    dist.all_reduce(slowest, dist.ReduceOp.MAX, group=group)
    return round(float(slowest.median()) * 1e3, 4)


def measure(operator: str, length: int, size: Size, ranks: int, group: Any, device: str) -> dict[str, Any]:
    """One point; with one rank, of the plain operator."""
    one, many = OPERATORS[operator]
    function = one if ranks == 1 else functools.partial(many, group=group)
    tensors = cut(inputs(operator, length, size, device), dist.get_rank(group), ranks)

    def forward() -> None:
        with torch.no_grad():
            function(**tensors, delta_softplus=True)

    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    both = milliseconds(lambda: differentiate(function, tensors), size.repeats, group, device)
    peak = torch.tensor(torch.cuda.max_memory_allocated() if device == "cuda" else 0, device=device)
    dist.all_reduce(peak, dist.ReduceOp.MAX, group=group)
    only = milliseconds(forward, size.repeats, group, device)
    return {"length": length, "gpus": ranks, "forward_ms": only, "both_ms": both, "peak_bytes": int(peak)}


def measure_all(size: Size, device: str) -> dict[str, list[dict[str, Any]]]:
    """Rows of every operator, on every number of ranks, at every length: all on rank 0, which takes part in all."""
    counts = [2**k for k in range(dist.get_world_size().bit_length()) if 2**k <= dist.get_world_size()]
    groups = {ranks: dist.new_group(list(range(ranks))) for ranks in counts}
    data: dict[str, list[dict[str, Any]]] = {operator: [] for operator in OPERATORS}
    for operator, rows in data.items():
        for ranks, group in groups.items():
            if dist.get_rank() < ranks:
                error = check(operator, size, dist.get_rank(), ranks, group, device)
                rows += [{**measure(operator, n, size, ranks, group, device), "error": error} for n in size.lengths]
            dist.barrier()
    return data


def main() -> None:
    """The command line of every rank."""
    options = machine.arguments(WHAT, "smoke").parse_args()
    device, size = ("cpu", SMOKE) if options.smoke else ("cuda", FULL)
    if device == "cuda":
        machine.take_gpu(int(os.environ["LOCAL_RANK"]), device)
        dist.init_process_group("nccl", device_id=torch.device(device, torch.cuda.current_device()))
    else:
        dist.init_process_group("gloo")
    start = time.perf_counter()
    data = measure_all(size, device)
    if dist.get_rank() == 0:
        settings = size._asdict() | {"batch": 1, "dtype": str(size.dtype), "gpus": dist.get_world_size()}
        settings["launcher"] = f"torchrun --nproc-per-node {dist.get_world_size()}"
        parts = {"seeds": [0], "wall_s": round(time.perf_counter() - start, 1), "settings": settings, "data": data}
        made = [machine.provenance(options.commit, device)]
        machine.write(options.out, machine.result("benchmarks/sequence_parallel.py", WHAT, made, parts))
        print(*(f"{operator} {row}" for operator, rows in data.items() for row in rows), sep="\n")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
