"""Times are the shortest of several, and are printed with the sign that the notebooks' tests look for."""

import itertools
import time

import pytest

from ssm_kit import timing
from ssm_kit.timing import best_of, stopwatch


def test_the_shortest_call_after_the_first_counts(monkeypatch):
    durations = iter([0.001, 0.03, 0.02, 0.05])  # the first is the warm-up
    clock = itertools.chain.from_iterable((100.0, 100.0 + d) for d in durations)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    calls = []
    assert best_of(lambda: calls.append(1), repeats=3) == pytest.approx(0.02)
    assert len(calls) == 4


def test_a_real_pause():
    assert 0.02 <= best_of(lambda: time.sleep(0.02), repeats=2) < 0.2


def test_work_on_a_gpu_is_waited_for(monkeypatch):
    waited = []
    monkeypatch.setattr(timing.torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(timing.torch.cuda, "synchronize", lambda: waited.append(1))
    best_of(lambda: None, repeats=2)
    assert len(waited) == 3


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.00 ns †"),
        (1.5e-9, "1.50 ns †"),
        (12.34e-6, "12.3 µs †"),
        (0.0123, "12.3 ms †"),
        (0.9994, "999 ms †"),
        (0.99951, "1.00 s †"),
        (0.0099951, "10.0 ms †"),
        (75.04, "75.0 s †"),
        (3600, "3600 s †"),
    ],
)
def test_text(seconds, text):
    assert stopwatch(seconds) == text


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_an_impossible_time(seconds):
    with pytest.raises(ValueError, match="seconds: expected a finite number >= 0, got "):
        stopwatch(seconds)


def test_no_repeats():
    with pytest.raises(ValueError, match="repeats: expected at least 1, got 0"):
        best_of(lambda: None, repeats=0)
