"""ComplexPole: its JavaScript against ssm_kit.lti, its bounds, its still picture."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from ssm_kit.figures import ComplexPole
from ssm_kit.figures.still import png
from ssm_kit.lti import half_life, recurrence

LAGS = 81


@pytest.fixture(scope="module")
def cases():
    rng = np.random.default_rng(1)
    return list(zip(rng.uniform(0.3, 1.02, 200).tolist(), rng.uniform(0, 3.14, 200).tolist(), strict=True))


def test_powers_equal_the_recurrence_on_an_impulse(javascript, cases):
    """Relative to the size rᵏ: a real part that happens to be nearly 0 has no digits of its own."""
    impulse, one = np.eye(1, LAGS, dtype=complex)[0], np.ones(1, dtype=complex)
    results = javascript("recurrence.js", [["powers", *c, LAGS] for c in cases])
    for (r, angle), found in zip(cases, results, strict=True):
        expected = recurrence(np.array([r * np.exp(1j * angle)]), one, one, impulse)
        error = np.abs(np.array(found) @ [1, 1j] - expected)
        assert (error <= 1e-9 * r ** np.arange(LAGS)).all(), (r, angle)


def test_a_rhythm_returns_after_one_period(javascript):
    """r = 0.97, θ = 0.30: 21 steps a turn, and the largest later echo of an input lies there."""
    (period,), (powers,) = (javascript("recurrence.js", [c]) for c in (["period", 0.3], ["powers", 0.97, 0.3, LAGS]))
    assert period == pytest.approx(2 * math.pi / 0.3)
    real = np.array(powers)[:, 0]
    assert abs(5 + np.argmax(real[5:]) - period) <= 1
    assert round(float(half_life(np.array(0.97)))) == 23


def test_values_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"ComplexPole: radius must be a number from 0 to 1.02, got 1.5"):
        ComplexPole(radius=1.5)
    with pytest.raises(ValueError, match=r"angle must be a number from 0 to 3.14"):
        ComplexPole(angle=-0.1)


@pytest.mark.parametrize(("radius", "angle"), [(0.0, 0.0), (1.02, 3.14), (0.97, 0.3)])
def test_still_picture_shows_the_response(radius, angle):
    pixels = np.asarray(Image.open(io.BytesIO(png(ComplexPole(radius=radius, angle=angle).draw))).convert("RGB"))
    pixels = pixels.astype(int)
    assert int((pixels[..., 2] - pixels[..., 0] > 80).sum()) > 200
