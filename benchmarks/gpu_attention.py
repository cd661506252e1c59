"""From which length on the operators are faster than attention: one layer of width 2048, batch 1, bfloat16, forward."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu_case import Case, Contender
from benchmarks.gpu_cases import normal, selective, ssd
from benchmarks.gpu_measure import milliseconds

LENGTHS = tuple(2**k for k in range(10, 18))
HEADS, HEAD_DIM = 16, 128
ATTENTION = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}
SCANS = {"selective_scan": selective, "ssd": ssd}


def attention(backend: SDPBackend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    with sdpa_kernel(backend):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


@torch.no_grad()
def measure(cases: Sequence[Case]) -> dict[str, Any]:
    """Milliseconds of attention and of every contender of `cases`, for all LENGTHS, and where they cross."""
    times: dict[str, list[float | None]] = {}
    for name, backend in ATTENTION.items():
        times[f"attention {name}"] = [_median(partial(_attend, backend, length)) for length in LENGTHS]
    for case in cases:
        for contender in case.contenders:
            prepare = partial(_scan, case.operator, contender)
            times[f"{case.operator} {contender.name}"] = [_median(partial(prepare, length)) for length in LENGTHS]
    crossings = {
        f"{scan} / {attention}": crossing(LENGTHS, times[scan], times[attention])
        for scan in times for attention in times
        if attention.startswith("attention") and not scan.startswith("attention")
    }  # fmt: skip
    return {"lengths": list(LENGTHS), "milliseconds": times, "faster_from": crossings}


def _attend(backend: SDPBackend, length: int) -> Callable[[], Tensor]:
    return partial(attention, backend, *(normal(1, HEADS, length, HEAD_DIM) for _ in range(3)))


def _scan(operator: str, contender: Contender, length: int) -> Callable[[], Any]:
    return partial(contender.run, **contender.arrange(SCANS[operator](1, length)))


def _median(prepare: Callable[[], Callable[[], Any]]) -> float | None:
    """Milliseconds; None where it cannot run, so that the other lengths and contenders are measured all the same."""
    try:
        return float(milliseconds(prepare())["ms"][0])
    except Exception as failure:
        print(f"{prepare}: {failure}", flush=True)
        return None


def crossing(lengths: Sequence[int], ours: Sequence[float | None], theirs: Sequence[float | None]) -> int | None:
    """The length from which on `ours` stays the smaller one, interpolated in logarithms; None if it ends above.

    The first length if ours is the smaller one everywhere. A length without both times is passed over.
    """
    rows = zip(lengths, ours, theirs, strict=True)
    gaps = [(length, math.log(a / b)) for length, a, b in rows if a is not None and b is not None]
    if not gaps or gaps[-1][1] >= 0:
        return None
    last = max((i for i, (_, gap) in enumerate(gaps) if gap >= 0), default=None)
    if last is None:
        return gaps[0][0]
    (before, above), (after, below) = gaps[last : last + 2]
    return round(before * (after / before) ** (above / (above - below)))
