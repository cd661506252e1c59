"""Time and peak memory of a forward and backward pass on the CPU."""

import re
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.case import Contender, Tensors


def forward_and_backward(contender: Contender, tensors: Tensors) -> None:
    """One training step's share: the output, and the gradient of its sum with respect to every tensor."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    contender.run(**leaves).sum().backward()


def times(contenders: Sequence[Contender], tensors: Tensors) -> dict[str, float]:
    """Median seconds of each contender, their runs taken in turns so that all see the same machine."""
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for contender in contenders:
        if contender.repeats > 1:
            forward_and_backward(contender, tensors)  # to warm up
    for turn in range(max(contender.repeats for contender in contenders)):
        for contender in contenders:
            if turn < contender.repeats:
                start = time.perf_counter()
                forward_and_backward(contender, tensors)
                seconds[contender.name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def growth(contender: Contender, inputs: Sequence[Tensors]) -> list[float]:
    """Seconds of one contender for each size of input: the fastest of its runs, taken in turns over the sizes.

    A median would do for a ratio, where both sides suffer alike; a fit wants what the code alone needs.
    """
    seconds = [float("inf")] * len(inputs)
    for _ in range(contender.repeats):
        for index, tensors in enumerate(inputs):
            start = time.perf_counter()
            forward_and_backward(contender, tensors)
            seconds[index] = min(seconds[index], time.perf_counter() - start)
    return seconds


def peak_memory(contender: Contender, tensors: Tensors, small: Tensors) -> int:
    """Bytes by which the process grows at most during one pass; `small` tensors warm it up. Linux only.

    Call it in a fresh process: memory that an earlier run returned to the allocator would not be counted.
    """
    forward_and_backward(contender, small)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
    before = _status("VmRSS")
    forward_and_backward(contender, tensors)
    return _status("VmHWM") - before


def exponent(lengths: Sequence[int], values: Sequence[float]) -> float:
    """p of the best fit value ~ L^p, by least squares in logarithms."""
    return float(np.polyfit(np.log(lengths), np.log(values), 1)[0])


def _status(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"/proc/self/status has no line {name}: peak memory is measured on Linux only")
    return int(found[1]) * 1024
