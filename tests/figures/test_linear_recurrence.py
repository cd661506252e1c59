"""LinearRecurrence: its JavaScript against ssm_kit.lti, its input patterns, its readings, its still picture."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from ssm_kit.figures import LinearRecurrence
from ssm_kit.figures.linear_recurrence import PATTERNS, signal
from ssm_kit.figures.still import png
from ssm_kit.lti import half_life, kernel, recurrence

ONE = np.ones(1)


@pytest.fixture(scope="module")
def cases():
    """200 random (Ā, B̄, x) of 1 to 79 steps, stable and slightly unstable."""
    rng = np.random.default_rng(0)
    return [
        (float(a), float(b), rng.normal(size=n).tolist())
        for a, b, n in zip(rng.uniform(-1.05, 1.05, 200), rng.uniform(0, 1, 200), rng.integers(1, 80, 200), strict=True)
    ]


def test_recurrence_equals_the_package(javascript, cases):
    for (a, b, x), found in zip(cases, javascript("recurrence.js", [["recurrence", *c] for c in cases]), strict=True):
        expected = recurrence(np.array([a]), np.array([b]), ONE, np.array(x))
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12, err_msg=f"Ā = {a}, B̄ = {b}")


def test_impulse_response_equals_the_kernel(javascript, cases):
    found = javascript("recurrence.js", [["impulseResponse", a, b, 101] for a, b, _ in cases])
    expected = [kernel(np.array([a]), np.array([b]), ONE, 101) for a, b, _ in cases]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_half_life_equals_the_package(javascript, cases):
    a = np.array([0.0, *(a for a, _, _ in cases)])
    found = javascript("recurrence.js", [["halfLife", v] for v in a.tolist()])
    assert [v is None for v in found] == np.isinf(half_life(a)).tolist()  # JSON has no infinity
    np.testing.assert_allclose([math.inf if v is None else v for v in found], half_life(a), rtol=1e-9)


def test_memory_and_gain_are_sums_of_the_impulse_response(javascript):
    a, b = 0.9, 0.5
    left = kernel(np.array([a]), np.array([b]), ONE, 2000)
    assert javascript("recurrence.js", [["memory", -a], ["gain", a, b]]) == pytest.approx([left.sum() / b, left.sum()])
    assert javascript("recurrence.js", [["gain", -a, b], ["gain", 1, b]]) == [pytest.approx(b / (1 + a)), None]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_are_the_same_in_the_browser(javascript, pattern):
    x = signal(pattern)
    assert x.shape == (60,)
    np.testing.assert_array_equal(javascript("recurrence.js", [["signal", pattern]])[0], x)


def test_noise_has_both_signs_and_no_repetition():
    noise = signal("noise")
    assert len(set(noise)) == 60
    assert noise.min() < -0.8 < 0.8 < noise.max()
    assert abs(noise.mean()) < 0.2


def test_the_surprise_from_090_to_099_memory_is_ten_times_longer():
    near, far = half_life(np.array([0.90, 0.99]))
    assert (round(near, 1), round(far)) == (6.6, 69)
    assert far / near == pytest.approx(10.48, abs=0.01)


def test_unknown_pattern_and_values_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"pattern must be one of 'impulse'.*got 'ramp'"):
        signal("ramp")
    with pytest.raises(ValueError, match=r"LinearRecurrence: a_bar must be a number from -1 to 1.05, got 1.2"):
        LinearRecurrence(a_bar=1.2)
    with pytest.raises(ValueError, match=r"pattern must be one of 'impulse'"):
        LinearRecurrence(pattern="ramp")


def blue_pixels(figure):
    """How much of the still picture has the state's colour."""
    pixels = np.asarray(Image.open(io.BytesIO(png(figure.draw))).convert("RGB")).astype(int)
    return int((pixels[..., 2] - pixels[..., 0] > 80).sum())


@pytest.mark.parametrize("a_bar", [-1.0, 0.0, 1.05])
def test_still_picture_at_the_ends_of_the_slider(a_bar):
    assert blue_pixels(LinearRecurrence(a_bar=a_bar, pattern="noise")) > 500


def test_still_picture_of_a_longer_memory_has_more_ink():
    assert blue_pixels(LinearRecurrence(a_bar=0.99)) > 1.5 * blue_pixels(LinearRecurrence(a_bar=0.5))
