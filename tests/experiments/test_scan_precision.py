"""The smoke size runs as its docstring says, and shows what the stored result shows at length 131072."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ssm_kit import results

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory) -> dict:
    out = tmp_path_factory.mktemp("scan_precision") / "result.json"
    command = [sys.executable, "experiments/scan_precision.py", "--smoke", "--out", str(out), "--commit", "0123abc"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return json.loads(out.read_text())


@pytest.fixture(params=["smoke", "stored"])
def result(request) -> dict:
    return request.getfixturevalue("smoke") if request.param == "smoke" else results.load("scan_precision")


def last(result: dict, way: str, lasting: str) -> list[float | None]:
    """Errors at the greatest length, one for each seed."""
    return result["data"][way][lasting][-1]


def test_schema(smoke):
    results.validate(smoke, "scan_precision")


def test_a_loop_and_chunks_keep_float32(result):
    """The error of a fading state does not grow with length."""
    for way in ("float32 loop", "float32 chunks"):
        for lengths in result["data"][way].values():
            assert max(max(seeds) for seeds in lengths) < 1e-5


def test_rounding_the_state_costs_more_than_rounding_the_inputs(result):
    state, inputs = (last(result, way, "30 steps") for way in ("bfloat16 state", "bfloat16 inputs, float32 state"))
    assert min(state) > 1.5 * max(inputs)


def test_quotients_break_where_the_running_product_leaves_float32(result):
    """exp(s_1 + ... + s_t) is infinite in float32 once the sum passes 88, however tame the states are."""
    assert last(result, "quotients of running products", "1 step") == [None] * len(result["seeds"])


def test_logarithms_lose_digits_with_length(result):
    """Running sums of hundreds leave few digits for their differences."""
    first = result["data"]["logarithms"]["1 step"][0]
    assert min(last(result, "logarithms", "1 step")) > 10 * max(first)
