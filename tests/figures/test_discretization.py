"""The figure's JavaScript against ssm_kit.lti, and the statements that it makes."""

import numpy as np
import pytest

from ssm_kit.figures.discretization import METHODS, largest_error, signal, smooth, solution, times, trajectory
from ssm_kit.lti import discretize

MODULE = "discretization.js"


@pytest.fixture(scope="module")
def cases():
    rng = np.random.default_rng(0)
    rates, steps = -rng.uniform(0.1, 5, 200), rng.uniform(0.01, 1, 200)
    chosen = zip(rng.choice(METHODS, 200), rates, steps, rng.random(200) < 0.5, strict=True)
    return [(str(m), float(a), float(d), bool(average)) for m, a, d, average in chosen]


def test_coefficients(javascript, cases):
    found = javascript(MODULE, [["coefficients", m, a, d] for m, a, d, _ in cases])
    expected = [discretize(np.array([a]), np.ones(1), d, m) for m, a, d, _ in cases]
    for key, column in (("A", 0), ("B", 1)):
        np.testing.assert_allclose([f[key] for f in found], [e[column][0] for e in expected], rtol=1e-12)


def test_trajectories(javascript, cases):
    for case, states in zip(cases, javascript(MODULE, [["trajectory", *c] for c in cases]), strict=True):
        np.testing.assert_allclose(states, trajectory(*case), rtol=1e-9, atol=1e-12, err_msg=str(case))


def test_solutions(javascript, cases):
    for kind in ("smooth", "held"):
        found = javascript(MODULE, [["solution", kind, a, d] for _, a, d, _ in cases])
        for (_, a, d, _), states in zip(cases, found, strict=True):
            np.testing.assert_allclose(states, solution(kind, a, d), rtol=1e-9, atol=1e-12)


def test_errors(javascript, cases):
    calls = [["errors", kind, a, d, average] for kind in ("smooth", "held") for _, a, d, average in cases]
    for (_, kind, a, d, average), found in zip(calls, javascript(MODULE, calls), strict=True):
        expected = [largest_error(m, kind, a, d, average) for m in METHODS]
        np.testing.assert_allclose([found[m] for m in METHODS], expected, rtol=1e-9, atol=1e-12)


def test_closed_form_solves_the_differential_equation():
    """h' = a h + x by central differences, and h(0) = 0."""
    t, step = np.linspace(0.1, 7.9, 50), 1e-4
    for a in (-0.1, -1.0, -5.0):
        slope = (smooth(a, t + step) - smooth(a, t - step)) / (2 * step)
        np.testing.assert_allclose(slope, a * smooth(a, t) + signal(t), atol=1e-6)
        assert smooth(a, np.zeros(1)) == 0


def test_held_solution_between_samples(javascript):
    """Two half steps under the same input are one whole step."""
    half, whole = javascript(MODULE, [["held", -1.6, 0.4, 0.25, 0.7], ["held", -1.6, 0.4, 0.5, 0.7]])
    assert javascript(MODULE, [["held", -1.6, half, 0.25, 0.7]]) == pytest.approx([whole], rel=1e-14)


def order(method, kind, average):
    """Slope of the error on the log-log plot."""
    small, large = (largest_error(method, kind, -1.0, d, average) for d in (0.01, 0.02))
    return np.log2(large / small)


@pytest.mark.parametrize(
    ("method", "kind", "average", "expected"),
    [
        ("zoh", "smooth", True, 1),
        ("euler", "smooth", True, 1),
        ("mamba", "smooth", True, 1),
        ("bilinear", "smooth", True, 2),
        ("bilinear", "smooth", False, 1),
        ("bilinear", "held", True, 2),
        ("bilinear", "held", False, 2),
        ("mamba", "held", True, 1),
    ],
)
def test_orders_of_accuracy(method, kind, average, expected):
    """The figure writes error ∝ Δ² exactly where the bilinear rule sees the input as it is."""
    assert order(method, kind, average) == pytest.approx(expected, abs=0.06)


def test_zoh_is_exact_for_held_inputs(javascript):
    found = javascript(MODULE, [["errors", "held", a, d, True] for a in (-0.1, -5) for d in (0.01, 1)])
    assert all(f["zoh"] == 0 < f["mamba"] for f in found)


def test_write_ratio_makes_the_published_table(javascript):
    """B̄ of ZOH over ΔB is (1 − e^−|Δa|)/|Δa|: at 1.6 Mamba's rule writes twice as much as ZOH."""
    sizes = [0.01, 0.1, 0.5, 1, 1.6, 2, 5]
    ratios = javascript(MODULE, [["writeRatio", -s, 1.0] for s in sizes])
    np.testing.assert_allclose(ratios, [0.995, 0.952, 0.787, 0.632, 0.499, 0.432, 0.199], atol=5e-4)


def test_delta_grid_divides_the_time_span(javascript):
    grid = np.array(javascript(MODULE, [["deltaGrid"]])[0])
    assert grid[0] == pytest.approx(0.01)
    assert grid[-1] == pytest.approx(1)
    assert (np.diff(grid) > 0).all()
    np.testing.assert_allclose([times(d)[-1] for d in grid], 8)
