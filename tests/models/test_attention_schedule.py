"""Attention's place: as many layers as asked for, where the placement says, and where public models have it."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssm_kit.models import schedule

PLACEMENTS = ("spread", "first", "middle", "last", "periodic")
whole = st.integers(1, 120)


def attention_layers(row):
    return [layer for layer, kind in enumerate(row) if kind == "*"]


@given(whole, st.floats(0, 1), st.sampled_from(PLACEMENTS))
def test_length_and_count(n, fraction, placement):
    row = schedule(n, fraction, placement)
    assert len(row) == n
    assert set(row) <= {"M", "*"}
    assert abs(len(attention_layers(row)) - fraction * n) <= 0.5


@pytest.mark.parametrize(
    ("placement", "row"),
    [
        ("spread", "M*MM*MM*M"),
        ("first", "***MMMMMM"),
        ("middle", "MMM***MMM"),
        ("last", "MMMMMM***"),
        ("periodic", "MM*MM*MM*"),
    ],
)
def test_the_five_placements(placement, row):
    assert schedule(9, 1 / 3, placement) == row


@pytest.mark.parametrize(
    ("n", "count", "placement", "layers"),
    [
        (32, 4, "spread", [4, 12, 20, 28]),  # Jamba v0.1: i % 8 == 4
        (48, 12, "periodic", list(range(3, 48, 4))),  # Qwen3-Next: (i + 1) % 4 == 0
        (26, 8, "periodic", [2, 5, 8, 11, 14, 17, 20, 23]),  # RecurrentGemma-2B: i % 3 == 2, two recurrent at the end
        (38, 12, "periodic", list(range(2, 36, 3))),  # RecurrentGemma-9B
    ],
)
def test_public_models(n, count, placement, layers):
    assert attention_layers(schedule(n, count / n, placement)) == layers


@given(whole, st.integers(1, 120))
def test_spread_leaves_equal_gaps(n, count):
    layers = attention_layers(schedule(n, min(count, n) / n, "spread"))
    gaps = [b - a for a, b in pairwise(layers)]
    assert not gaps or max(gaps) - min(gaps) <= 1
    assert abs(layers[0] - (n - 1 - layers[-1])) <= 1


@given(whole, st.integers(1, 120))
def test_middle_is_central(n, count):
    layers = attention_layers(schedule(n, min(count, n) / n, "middle"))
    assert layers == list(range(layers[0], layers[0] + len(layers)))
    assert 0 <= n - 1 - layers[-1] - layers[0] <= 1


def test_a_half_is_rounded_up():
    assert schedule(2, 0.25, "last") == "M*"
    assert schedule(10, 0.05, "first") == "*" + 9 * "M"


def test_own_letters():
    assert schedule(4, 0.5, "last", mixer="G", attention="L") == "GGLL"


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0, 0.5), {}, "n_layers must be a whole number >= 1; got 0"),
        ((2.0, 0.5), {}, "n_layers must be a whole number >= 1; got 2.0"),
        ((True, 0.5), {}, "n_layers must be a whole number >= 1; got True"),
        ((4, 1.5), {}, "attention_fraction must be between 0 and 1; got 1.5"),
        ((4, float("nan")), {}, "attention_fraction must be between 0 and 1; got nan"),
        ((4, 0.5, "end"), {}, "placement must be one of 'spread', .*; got 'end'"),
        ((4, 0.5), {"mixer": "Mamba"}, "mixer must be one letter; got 'Mamba'"),
        ((4, 0.5), {"attention": "M"}, "attention must differ from mixer; both are 'M'"),
    ],
)
def test_refusals(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        schedule(*arguments, **options)
