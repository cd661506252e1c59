"""RunningState: the browser's toy state and sizes against ssm_kit.lti and ssm_kit.cost."""

import numpy as np
import pytest

from ssm_kit.cost import PRESETS, crossover_tokens, kv_cache_bytes, recurrent_state_bytes
from ssm_kit.figures import running_state as python
from ssm_kit.lti import recurrence

MODULE, MIB = "running_state.js", 2**20
LLAMA = PRESETS["8B"]


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)
    letters = [*"abcdefgßéλ界🙂'.,-", " ", "\t", "\n", "  "]
    return ["".join(rng.choice(letters, rng.integers(1, 60))) for _ in range(200)]


def test_words_and_vectors_are_the_same_in_both_languages(javascript, texts):
    assert javascript(MODULE, [["words", t] for t in texts]) == [python.words(t) for t in texts]
    vocabulary = sorted({w for t in texts for w in python.words(t)})
    assert len(vocabulary) > 200
    assert javascript(MODULE, [["vector", w] for w in vocabulary]) == [python.vector(w) for w in vocabulary]


def test_vectors_look_random():
    values = np.array([python.vector(f"word{i}") for i in range(2000)])
    assert np.abs(values.mean(0)).max() < 0.05  # uniform on [-1, 1): mean 0, variance 1/3
    np.testing.assert_allclose(values.var(0), 1 / 3, atol=0.03)
    assert np.abs(np.corrcoef(values.T) - np.eye(python.WIDTH)).max() < 0.08


def test_state_equals_the_recurrence_of_the_package(javascript, texts):
    rng = np.random.default_rng(1)
    cases = [(t, round(float(rng.uniform(0, 0.99)), 2), int(rng.integers(0, 120))) for t in texts]
    figure = python.RunningState()
    found = javascript(MODULE, [["stateAfter", python.words(t), decay, count] for t, decay, count in cases])
    for (text, decay, count), state in zip(cases, found, strict=True):
        read = python.words(text)
        expected = np.zeros(python.WIDTH)
        if read and count:
            v, one = np.array([python.vector(read[i % len(read)]) for i in range(count)]), np.ones((python.WIDTH, 1))
            expected = recurrence(decay * one, (1 - decay) * one, one, v)[-1]
        np.testing.assert_allclose(state, expected, rtol=1e-9, atol=1e-12)
        figure.text, figure.decay, figure.tokens = text, decay, count
        np.testing.assert_allclose(figure.state(), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("count", [5000, 123_457, python.MOST])
def test_long_runs_forget_the_same(javascript, count):
    read = python.words(python.SENTENCE)
    (state,) = javascript(MODULE, [["stateAfter", read, 0.99, count]])
    np.testing.assert_allclose(state, python.RunningState(decay=0.99, tokens=count).state(), rtol=1e-9)


def test_reach_bounds_what_the_axis_must_hold(javascript):
    read = python.words(python.SENTENCE)
    calls = [["stateAfter", read, 0.9, count] for count in range(1, 2 * len(read) + 1)]
    (reach,) = javascript(MODULE, [["reach", read, 0.9]])
    assert reach == pytest.approx(np.abs(javascript(MODULE, calls)).max(), rel=1e-12)


def test_bytes_equal_the_cost_formulas(javascript):
    rng = np.random.default_rng(2)
    tokens = [int(t) for t in rng.integers(0, python.MOST, 200)]
    expected = [kv_cache_bytes(LLAMA.layers, LLAMA.kv_heads, LLAMA.head_dim, t) for t in tokens]
    assert javascript(MODULE, [["cacheBytes", t] for t in tokens]) == expected
    for name, shape in python.STATES.items():
        size = recurrent_state_bytes(*shape)
        balance = crossover_tokens(size, kv_cache_bytes(LLAMA.layers, LLAMA.kv_heads, LLAMA.head_dim))
        assert javascript(MODULE, [["stateBytes", name], ["crossover", name]]) == [size, balance]


@pytest.mark.parametrize(
    ("model", "mib", "tokens"), [("mamba-1", 10, 80), ("falcon-mamba", 16, 128), ("mamba-2", 80, 640)]
)
def test_published_sizes(model, mib, tokens):
    """The state in bfloat16 is as large as the cache of this many Llama-3-8B tokens: below, it is the larger one."""
    held, cache = python.RunningState(model=model, tokens=tokens).bytes_held()
    assert held == cache == mib * MIB
    held, cache = python.RunningState(model=model, tokens=50).bytes_held()
    assert held > cache


@pytest.mark.parametrize(
    "wrong", [{"decay": 1.0}, {"decay": "fast"}, {"tokens": -1}, {"tokens": 2**20 + 1}, {"model": "gpt"}, {"text": 3}]
)
def test_bad_parameters(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"RunningState: {name} must be"):
        python.RunningState(**wrong)


def test_still_picture_follows_the_parameters():
    stills = [python.RunningState(**p).fallback()["image/png"] for p in ({}, {"tokens": 3}, {"model": "mamba-1"})]
    assert len(set(stills)) == 3
