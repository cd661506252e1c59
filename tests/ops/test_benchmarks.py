"""The benchmark compares implementations of one thing, and its arithmetic is right."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.cpu import cases, memory
from benchmarks.measure import exponent, times
from ssm_kit import results

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


def test_a_sequence_in_pieces_is_measured(tmp_path: Path):
    out = tmp_path / "sequence_parallel.json"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m"]
    command += ["benchmarks.sequence_parallel", "--smoke", "--commit", "0123abc", "--out", str(out)]
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    results.validate(result, "sequence_parallel")
    for rows in result["data"].values():
        assert [row["gpus"] for row in rows] == [1, 2]
        assert all(row["both_ms"] > 0 and row["error"] < 1e-5 for row in rows)
