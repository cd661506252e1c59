"""From which length on the operators are faster than attention: one layer of width 2048, batch 1, bfloat16, forward."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu_case import Case
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
    times: dict[str, list[float]] = {}
    for name, backend in ATTENTION.items():
        times[f"attention {name}"] = [
            _median(partial(attention, backend, *(normal(1, HEADS, length, HEAD_DIM) for _ in range(3))))
            for length in LENGTHS
        ]
    for case in cases:
        for contender in case.contenders:
            times[f"{case.operator} {contender.name}"] = [
                _median(partial(contender.run, **contender.arrange(SCANS[case.operator](1, length))))
                for length in LENGTHS
            ]
    crossings = {
        f"{scan} / {attention}": crossing(LENGTHS, times[scan], times[attention])
        for scan in times for attention in times
        if attention.startswith("attention") and not scan.startswith("attention")
    }  # fmt: skip
    return {"lengths": list(LENGTHS), "milliseconds": times, "faster_from": crossings}


def crossing(lengths: Sequence[int], ours: Sequence[float], theirs: Sequence[float]) -> int | None:
    """The length from which on `ours` stays the smaller one, interpolated in logarithms; None if it ends above.

    The first length if ours is the smaller one everywhere.
    """
    gaps = [math.log(a / b) for a, b in zip(ours, theirs, strict=True)]
    if gaps[-1] >= 0:
        return None
    last = max((i for i, gap in enumerate(gaps) if gap >= 0), default=None)
    if last is None:
        return lengths[0]
    share = gaps[last] / (gaps[last] - gaps[last + 1])
    return round(lengths[last] * (lengths[last + 1] / lengths[last]) ** share)


def _median(function: Any) -> float:
    return float(milliseconds(function)["ms"][0])
