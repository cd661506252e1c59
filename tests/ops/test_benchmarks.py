"""The benchmark compares implementations of one thing, and its arithmetic is right."""

import pytest
import torch

from benchmarks.cpu import cases, memory
from benchmarks.measure import exponent, times

LENGTH = 64


@pytest.mark.parametrize("case", cases(), ids=lambda case: f"{case.operator} {case.size}")
def test_all_contenders_compute_the_same(case):
    tensors = case.make(LENGTH)
    ours, *others = (contender for contender in case.contenders if contender.installed)
    expected = ours.run(**tensors)
    for contender in others:
        torch.testing.assert_close(contender.run(**tensors), expected, rtol=1e-4, atol=1e-4)


def test_exponent_of_a_power():
    lengths = [1024, 4096, 65536]
    assert exponent(lengths, [3e-6 * length**1.5 for length in lengths]) == pytest.approx(1.5)


def test_time_and_memory_of_a_scan():
    case = cases()[0]
    ours = case.contenders[0]
    assert times([ours], case.make(LENGTH))[ours.name] > 0
    length = 512
    input_, states = (4 * length * 256 * 4 * n for n in (1, 16))  # bytes of x, and of all states if they were kept
    assert input_ < memory(0, case, ours, length, threads=1) < states
