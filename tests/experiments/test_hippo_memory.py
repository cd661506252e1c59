"""The smoke size runs, and shows what the stored result shows."""

import numpy as np
import pytest

from ssm_kit import results

SLOW = "16 waves"
"""The signal with half as many free numbers as the state."""


@pytest.fixture(scope="module")
def smoke(run_smoke) -> dict:
    return run_smoke("hippo_memory")


@pytest.fixture(params=["smoke", "stored"])
def result(request) -> dict:
    return request.getfixturevalue("smoke") if request.param == "smoke" else results.load("hippo_memory")


def error(result: dict, precision: str, memory: str) -> np.ndarray:
    """Mean over the delays, one for each seed."""
    return np.mean(result["data"][SLOW][precision][memory]["error"], axis=-1)


def test_schema(smoke):
    results.validate(smoke, "hippo_memory")


def test_legs_remembers_where_a_random_memory_does_not(result):
    for precision in ("float32", "bfloat16"):
        assert (error(result, precision, "LegS with 1/t") < 0.05 * error(result, precision, "random")).all()


def test_oscillating_diagonals_hold_it_and_real_ones_do_not(result):
    """S4D's complex poles make a basis; real decays of all speeds are nearly the same curve 64 times."""
    for kind in ("S4D-LegS", "S4D-Lin", "S4D-Inv"):
        assert (error(result, "float32", kind) < 0.01).all()
    assert (error(result, "float32", "S4D-Real") > 0.5).all()


def test_rounding_hurts_legs_without_1_over_t_more_than_with(result):
    with_, without = (error(result, "bfloat16", f"LegS {kind} 1/t") for kind in ("with", "without"))
    assert (without > 3 * with_).all()


def test_chosen_time_scales_are_inside_the_sweep(result):
    """A scale at the edge of the sweep would say that the sweep was too narrow."""
    for memory in ("LegS without 1/t", "S4D-LegS", "S4D-Lin", "S4D-Inv"):
        scales = result["data"][SLOW]["bfloat16"][memory]["scale"]
        assert all(result["settings"]["horizons"][0] < scale < result["settings"]["horizons"][-1] for scale in scales)
