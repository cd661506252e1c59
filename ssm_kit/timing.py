"""Wall-clock times of small pieces of work, and how the book prints them."""

import time
from collections.abc import Callable
from typing import Any

import torch


def best_of(function: Callable[[], Any], repeats: int = 5) -> float:
    """Shortest wall-clock time of `function()` in seconds, over `repeats` calls after one that warms up.

    The shortest, because everything that disturbs a measurement makes it longer. Work that the function queues on a
    CUDA device is waited for. Raises ValueError if repeats < 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats: expected at least 1, got {repeats!r}")
    _finish(function)
    return min(_finish(function) for _ in range(repeats))


def _finish(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    # Asked only where CUDA is in use: the question itself would start it and cost seconds.
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def stopwatch(seconds: float) -> str:
    """A time with three digits and a fitting unit, such as "12.3 ms †".

    Every printed time carries the dagger, which is how the notebooks' tests know that the number may differ.
    Raises ValueError for a negative time or one that is not finite.
    """
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"seconds: expected a finite number >= 0, got {seconds!r}")
    for factor, unit in ((1e9, "ns"), (1e6, "µs"), (1e3, "ms")):
        if seconds * factor < 999.5:
            return f"{_three_digits(seconds * factor)} {unit} †"
    return f"{_three_digits(seconds)} s †"


def _three_digits(value: float) -> str:
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{decimals}f}"
