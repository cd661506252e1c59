"""Decoding with the cache gives the text that recomputing everything would give."""

import pytest
import torch
from small_models import VOCABULARY, build, random_ids

from ssm_kit.models import LanguageModel, generate, stream


@torch.no_grad()
def recomputed(model, ids, count):
    """Greedy decoding without a cache."""
    for _ in range(count):
        ids = torch.cat([ids, model(ids)[0][:, -1:].argmax(-1)], dim=1)
    return ids


@pytest.mark.parametrize("pattern", ["SSS", "M-M-", "*-*-", "L-L-", "S-M-*-L-"])
@pytest.mark.parametrize("length", [1, 7])
def test_greedy(pattern, length):
    model, ids = build(pattern), random_ids(3, length)
    text = generate(model, ids, 10)
    assert torch.equal(text, recomputed(model, ids, 10))
    assert len(text[:, length:].unique()) > 3  # not one token over and over


def test_batch_rows_alone(hybrid):
    ids = random_ids(3, 5)
    together = generate(hybrid, ids, 8)
    assert torch.equal(together, torch.cat([generate(hybrid, row[None], 8) for row in ids]))


def test_the_prompt_comes_first_and_int32_is_enough(hybrid):
    ids = random_ids(2, 5)
    text = generate(hybrid, ids.to(torch.int32), 1)
    assert text.shape == (2, 6)
    assert text.dtype == torch.int64
    assert torch.equal(text[:, :5], ids)


def test_one_token_at_a_time(hybrid):
    """The prompt is read once; every further token is one step."""
    calls = []
    counted = build("S-M-*-L-")
    counted.hidden = lambda ids, cache=None: calls.append(ids.shape) or LanguageModel.hidden(counted, ids, cache)
    counted.step = lambda ids, cache: calls.append(ids.shape) or LanguageModel.step(counted, ids, cache)
    generate(counted, random_ids(2, 5), 4)
    assert calls == [(2, 5), (2,), (2,), (2,)]


# Seeds


def seeded(model, seed, **options):
    generator = torch.Generator().manual_seed(seed)
    return generate(model, random_ids(4, 5), 12, temperature=1.0, generator=generator, **options)


def test_seeds(hybrid):
    assert torch.equal(seeded(hybrid, 1), seeded(hybrid, 1))
    assert not torch.equal(seeded(hybrid, 1), seeded(hybrid, 2))


def test_the_global_seed_without_a_generator(hybrid):
    texts = []
    for _ in range(2):
        torch.manual_seed(3)
        texts.append(generate(hybrid, random_ids(4, 5), 12, temperature=1.0))
    assert torch.equal(*texts)
    before = torch.get_rng_state()
    seeded(hybrid, 1)
    assert torch.equal(torch.get_rng_state(), before)


def test_top_k_of_one_is_greedy(hybrid):
    assert torch.equal(seeded(hybrid, 1, top_k=1), generate(hybrid, random_ids(4, 5), 12))


@pytest.mark.parametrize("options", [{"top_k": 3}, {"top_p": 0.3}])
def test_draws_stay_in_the_support(hybrid, options):
    text = seeded(hybrid, 1, **options)
    with torch.no_grad():
        probabilities = hybrid(text[:, :-1])[0].softmax(-1)[:, 4:]
    chosen = probabilities.gather(-1, text[:, 5:, None])
    likelier = (probabilities > chosen).sum(-1)
    if "top_k" in options:
        assert likelier.max() < 3
        assert likelier.max() > 0
    else:
        assert (probabilities * (probabilities > chosen)).sum(-1).max() < 0.3


# Stop


def test_a_row_ends_at_its_stop_token(hybrid):
    ids = random_ids(3, 5)
    free = generate(hybrid, ids, 12)
    stop = {int(free[0, 7]), int(free[1, 9])}
    text = generate(hybrid, ids, 12, stop=stop)
    for row, unstopped in zip(text[:, 5:], free[:, 5:], strict=True):
        ends = [t for t, token in enumerate(unstopped.tolist()) if token in stop] or [11]
        assert torch.equal(row[: ends[0] + 1], unstopped[: ends[0] + 1][: len(row)])
        assert set(row[ends[0] :].tolist()) <= {int(unstopped[ends[0]])}


def test_generation_ends_when_all_rows_have(hybrid):
    ids = random_ids(3, 5)
    free = generate(hybrid, ids, 12)
    first = free[:, 5:].tolist()
    stop = {row[2] for row in first}
    ends = [next(t for t, token in enumerate(row) if token in stop) for row in first]
    assert generate(hybrid, ids, 12, stop=stop).shape[1] == 5 + max(ends) + 1
    assert max(ends) <= 2


# Streaming


def test_streaming_is_generation(hybrid):
    ids = random_ids(2, 5)
    new = list(stream(hybrid, ids, 6))
    assert [token.shape for token in new] == 6 * [(2,)]
    assert torch.equal(torch.stack(new, 1), generate(hybrid, ids, 6)[:, 5:])


def test_streaming_works_as_it_is_read():
    model = build("M-")
    tokens = stream(model, random_ids(1, 5), 3)
    next(tokens)
    assert torch.is_grad_enabled()  # the reader's own code, between two tokens
    model.step = None
    with pytest.raises(TypeError):  # so the second token had not been computed
        next(tokens)


def test_no_graph_is_kept(hybrid):
    assert not next(stream(hybrid, random_ids(1, 5), 1)).requires_grad
    assert all(weight.grad is None for weight in hybrid.parameters())


def test_progress_bar(hybrid, capsys):
    ids = random_ids(1, 5)
    text = generate(hybrid, ids, 6, progress=True)
    assert torch.equal(text, generate(hybrid, ids, 6))
    shown = capsys.readouterr().err
    assert "generate: 100%" in shown
    assert "6/6" in shown


# Refusals


@pytest.mark.parametrize("run", [generate, stream])
@pytest.mark.parametrize(
    ("count", "options", "message"),
    [
        (0, {}, "max_new_tokens must be a whole number >= 1; got 0"),
        (2.5, {}, "max_new_tokens must be a whole number >= 1; got 2.5"),
        (2, {"stop": [VOCABULARY]}, r"stop must hold token ids from 0 to 31; got \[32\]"),
        (2, {"top_k": 2}, "temperature must be > 0"),
        (2, {"temperature": -1}, "temperature must be a number >= 0; got -1"),
    ],
)
def test_refusals_come_at_the_call(hybrid, run, count, options, message):
    with pytest.raises(ValueError, match=message):
        run(hybrid, random_ids(1, 5), count, **options)
