"""TwoFaces: both faces in the browser against ssm_kit.lti."""

import numpy as np
import pytest

from ssm_kit.figures import two_faces as python
from ssm_kit.lti import convolve, discretize, kernel, recurrence

MODULE, ONE = "two_faces.js", np.ones(1)


@pytest.fixture(scope="module")
def cases():
    """(a, Δ, kernel length, selection) over the ranges of the sliders."""
    rng = np.random.default_rng(0)
    rates, steps = rng.uniform(-3, 0, 200).round(9), rng.uniform(0.05, 1, 200).round(9)
    cuts, switches = rng.integers(1, 17, 200), rng.integers(0, 2, 200).astype(bool)
    return [*zip(*(v.tolist() for v in (rates, steps, cuts, switches)), strict=True), (0.0, 0.5, 16, False)]


def test_both_sides_share_the_inputs_and_the_rule_of_selection(javascript):
    plain, selective = javascript(MODULE, [["deltas", 0.3, False], ["deltas", 0.3, True]])
    assert plain == [0.3] * len(python.INPUTS)
    np.testing.assert_allclose(selective, 0.3 * (0.2 + 2 * np.abs(python.INPUTS)), rtol=1e-15)


def test_faces_equal_the_package(javascript, cases):
    figure = python.TwoFaces()
    for case, found in zip(cases, javascript(MODULE, [["faces", *case] for case in cases]), strict=True):
        figure.a, figure.delta, figure.length, figure.selection = case
        states, sums = figure.outputs()
        np.testing.assert_allclose(found["recurrence"], states, rtol=1e-9, atol=1e-13, err_msg=str(case))
        np.testing.assert_allclose(found["sums"], sums, rtol=1e-9, atol=1e-13, err_msg=str(case))
        for k, (row, expected) in enumerate(zip(found["rows"], figure.weights(), strict=True)):
            np.testing.assert_allclose(row, expected[k + 1 - len(row) : k + 1][::-1], rtol=1e-9, err_msg=str(case))


def test_without_selection_the_rows_are_one_kernel(javascript, cases):
    fixed = [case[:3] for case in cases if not case[3]]
    for (a, delta, length), found in zip(fixed, javascript(MODULE, [["faces", *c, False] for c in fixed]), strict=True):
        A_bar, B_bar = discretize(a * ONE, ONE, delta)
        K = kernel(A_bar, B_bar, ONE, length)
        np.testing.assert_allclose(found["kernel"], K, rtol=1e-9)
        x = np.array(python.INPUTS)
        np.testing.assert_allclose(found["recurrence"], recurrence(A_bar, B_bar, ONE, x), rtol=1e-9, atol=1e-14)
        padded = np.concatenate([K, np.zeros(len(x) - length)])
        np.testing.assert_allclose(found["sums"], convolve(x, padded), rtol=1e-9, atol=1e-13)


def test_the_faces_agree_until_the_kernel_ends():
    for selection in (False, True):
        figure = python.TwoFaces(length=16, selection=selection)
        states, sums = figure.outputs()
        assert np.abs(states - sums).max() < 1e-15
        figure.length = 5
        states, sums = figure.outputs()
        np.testing.assert_allclose(states[:5], sums[:5], rtol=1e-14, atol=1e-15)
        assert np.abs(states - sums).max() > 0.01


def test_a_cut_kernel_loses_what_older_inputs_left_in_the_state():
    figure = python.TwoFaces(length=6)
    states, sums = figure.outputs()
    A_bar = figure.coefficients()[0][0]
    np.testing.assert_allclose((states - sums)[6:], A_bar**6 * states[:-6], rtol=1e-12, atol=1e-16)


def test_selection_leaves_no_common_kernel():
    weights = python.TwoFaces(selection=True).weights()
    by_lag = np.array([weights[k, k - 3] for k in range(3, 16)])
    assert np.ptp(by_lag) > 0.1  # the weight three steps back depends on the output
    weights = python.TwoFaces().weights()
    assert np.ptp([weights[k, k - 3] for k in range(3, 16)]) < 1e-16


@pytest.mark.parametrize(
    "wrong", [{"a": 0.5}, {"delta": 0.0}, {"length": 0}, {"length": 17}, {"step": 17}, {"selection": "on"}]
)
def test_bad_parameters(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"TwoFaces: {name} must be"):
        python.TwoFaces(**wrong)


def test_still_picture_follows_the_parameters():
    stills = [python.TwoFaces(**p).fallback()["image/png"] for p in ({}, {"selection": True}, {"length": 4})]
    assert len(set(stills)) == 3
