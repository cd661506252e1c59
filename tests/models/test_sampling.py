"""What may be drawn, and how often."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssm_kit.models import Sampling

LOGITS = torch.tensor([[1.0, 3.0, 2.0, 0.0], [0.0, 0.0, 0.0, -5.0]])


def test_greedy_takes_the_likeliest():
    assert Sampling().choose(LOGITS)[0] == 1


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_temperature_divides_logits(temperature):
    expected = (LOGITS / temperature).softmax(-1)
    torch.testing.assert_close(Sampling(temperature).probabilities(LOGITS), expected)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 99])
def test_top_k_keeps_exactly_k(k):
    probabilities = Sampling(1.0, top_k=k).probabilities(LOGITS)  # the second row has a tie of three
    assert (probabilities > 0).sum(-1).tolist() == 2 * [min(k, 4)]
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(2))
    likeliest = LOGITS[0].sort(descending=True).indices[:k]
    torch.testing.assert_close(probabilities[0, likeliest], LOGITS[0, likeliest].softmax(-1))


def test_top_p_keeps_the_fewest_that_reach_p():
    logits = torch.tensor([[0.1, 0.4, 0.2, 0.3]]).log()
    for p, kept in [(0.1, [1]), (0.39, [1]), (0.41, [1, 3]), (0.69, [1, 3]), (0.71, [1, 2, 3]), (1.0, [0, 1, 2, 3])]:
        probabilities = Sampling(1.0, top_p=p).probabilities(logits)
        assert probabilities[0].nonzero()[:, 0].tolist() == kept
        torch.testing.assert_close(probabilities[0, kept], logits[0, kept].softmax(-1))


@given(
    st.lists(st.floats(-20, 20), min_size=1, max_size=12),
    st.floats(0.1, 3),
    st.integers(1, 14),
    st.floats(0.001, 1),
)
def test_top_k_then_top_p(row, temperature, k, p):
    logits = torch.tensor([row], dtype=torch.float64)
    probabilities = Sampling(temperature, top_k=k, top_p=p).probabilities(logits)[0]
    kept = probabilities > 0
    of_top_k = Sampling(temperature, top_k=k).probabilities(logits)[0]
    assert 1 <= kept.sum() <= min(k, len(row))
    assert of_top_k[kept].min() >= of_top_k[~kept].max() if not kept.all() else True
    assert of_top_k[kept].sum() >= p - 1e-12
    assert of_top_k[kept].sum() - of_top_k[kept].min() < p
    assert math.isclose(probabilities.sum(), 1, rel_tol=1e-12)


def test_draws_follow_the_distribution():
    sampling = Sampling(1.5, top_k=3, top_p=0.9, generator=torch.Generator().manual_seed(0))
    draws = sampling.choose(LOGITS[:1].expand(20_000, -1))
    frequencies = torch.bincount(draws, minlength=4) / len(draws)
    expected = sampling.probabilities(LOGITS)[0]
    assert frequencies[expected == 0].sum() == 0
    assert (frequencies - expected).abs().max() < 4 * (0.25 / len(draws)) ** 0.5


def test_half_precision_is_widened():
    logits = torch.full((1, 4096), 1.0, dtype=torch.bfloat16)
    probabilities = Sampling(1.0, top_p=0.5).probabilities(logits)  # a sum of 4096 in bfloat16 would stop at 256
    assert probabilities.dtype == torch.float32
    assert abs((probabilities > 0).sum().item() - 2048) <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature must be a number >= 0; got -1.0"),
        ({"temperature": math.nan}, "temperature must be a number >= 0; got nan"),
        ({"temperature": 1.0, "top_k": 0}, "top_k must be a whole number >= 1, or None; got 0"),
        ({"temperature": 1.0, "top_k": 2.0}, "top_k must be a whole number >= 1, or None; got 2.0"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p must be above 0 and at most 1, or None; got 0.0"),
        ({"temperature": 1.0, "top_p": 1.1}, "top_p must be above 0 and at most 1, or None; got 1.1"),
        ({"top_k": 3}, "temperature must be > 0 for top_k, top_p or generator to matter; got 0"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**options)
