"""The smoke size runs as its docstring says, and shows what the stored result shows at length 131072."""

import pytest

from ssm_kit import results


@pytest.fixture(scope="module")
def smoke(run_smoke) -> dict:
    return run_smoke("scan_precision")


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
