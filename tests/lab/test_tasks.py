"""The tasks: their construction by hand, their statistics, and that a batch is a function of seed and index."""

from dataclasses import replace

import pytest
import torch

from ssm_kit.lab import MQAR, ByteText, InductionHeads, Needle, SelectiveCopying, SequentialDigits
from ssm_kit.lab.tasks.digits import FONTS, glyphs
from ssm_kit.lab.tasks.needle import FACT, QUESTION

TASKS = [
    MQAR(),
    MQAR(random_filler=False, vocab_size=8192, length=128),
    SelectiveCopying(),
    InductionHeads(),
    ByteText(),
    ByteText(part="held-out", length=64),
    Needle(),
    SequentialDigits(),
]


def draw(task, size=4000, seed=0):
    return task.batch(size, seed=seed, index=0)


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_shapes_ranges_and_reproducibility(task):
    inputs, targets, mask = batch = task.batch(5, seed=3, index=7)
    for tensor, dtype in ((inputs, torch.int64), (targets, torch.int64), (mask, torch.bool)):
        assert tensor.shape == (5, task.length)
        assert tensor.dtype == dtype
    for tensor in (inputs, targets):
        assert tensor.min() >= 0
        assert tensor.max() < task.vocab_size
    assert (targets[~mask] == 0).all()
    assert mask.any(dim=1).all()
    torch.rand(3)  # whatever else is drawn
    again = task.batch(5, seed=3, index=7)
    assert all(torch.equal(a, b) for a, b in zip(batch, again, strict=True))
    for other in (task.batch(5, seed=3, index=8), task.batch(5, seed=4, index=7)):
        assert not torch.equal(inputs, other.inputs)


@pytest.mark.parametrize("size", [0, -1])
def test_an_empty_batch_is_refused(size):
    with pytest.raises(ValueError, match=f"size: expected at least 1; got {size}"):
        MQAR().batch(size, seed=0, index=0)


@pytest.mark.parametrize("random_filler", [False, True])
def test_mqar_asks_every_pair_once(random_filler):
    task = MQAR(vocab_size=64, length=64, pairs=8, random_filler=random_filler)
    inputs, targets, mask = draw(task, 500)
    keys, values = inputs[:, 0:16:2], inputs[:, 1:16:2]
    assert ((keys >= 1) & (keys < 32)).all()
    assert ((values >= 32) & (values < 64)).all()
    assert all(len(row.unique()) == 8 for part in (keys, values) for row in part)
    assert (mask.sum(dim=1) == 8).all()
    assert not mask[:, :16].any()
    assert not mask[:, 17::2].any()
    for row in range(500):
        pairs = dict(zip(keys[row].tolist(), values[row].tolist(), strict=True))
        asked = inputs[row][mask[row]].tolist()
        assert sorted(asked) == sorted(pairs)
        assert targets[row][mask[row]].tolist() == [pairs[key] for key in asked]
    filler = inputs[:, 16:][~mask[:, 16:]]
    assert set(filler.tolist()) == (set(range(64)) if random_filler else {0})


def test_mqar_keys_values_and_gaps_have_their_distributions():
    inputs, _, mask = draw(MQAR(vocab_size=64, length=64, pairs=1), 20000)
    for tokens, low, number in ((inputs[:, 0], 1, 31), (inputs[:, 1], 32, 32)):
        share = torch.bincount(tokens - low, minlength=number) / 20000
        assert (share - 1 / number).abs().max() < 5 * (1 / number / 20000) ** 0.5
    slots = (mask.long().argmax(dim=1) - 2) // 2  # the one pair fills positions 0 and 1
    weights = torch.arange(1, 32).double() ** (0.01 - 1)
    expected = weights / weights.sum()
    share = torch.bincount(slots, minlength=31) / 20000
    assert ((share - expected).abs() < 5 * (expected / 20000).sqrt()).all()


def test_mqar_with_power_one_is_uniform():
    _, _, mask = draw(MQAR(vocab_size=64, length=64, pairs=1, power=1.0), 20000)
    share = mask[:, 2::2].double().mean(dim=0)
    assert (share - 1 / 31).abs().max() < 5 * (1 / 31 / 20000) ** 0.5


def test_selective_copying_repeats_the_tokens_in_order():
    inputs, targets, mask = draw(SelectiveCopying(vocab_size=16, length=40, tokens=8))
    context, answers = inputs[:, :32], targets[:, 32:]
    assert torch.equal(context[context > 0].view(-1, 8), answers)
    assert (inputs[:, 32:] == 15).all()
    assert mask[:, 32:].all()
    assert not mask[:, :32].any()
    assert set(answers.unique().tolist()) == set(range(1, 15))
    occupied = (context > 0).double().mean(dim=0)  # every place alike: 8 of 32
    assert (occupied - 0.25).abs().max() < 5 * (0.25 * 0.75 / 4000) ** 0.5


def test_induction_heads_ask_for_the_successor():
    inputs, targets, mask = draw(InductionHeads(vocab_size=16, length=32))
    special = inputs == 15
    assert (special.sum(dim=1) == 2).all()
    assert special[:, -1].all()
    first = special.long().argmax(dim=1)
    assert torch.equal(targets[:, -1], inputs.gather(1, first[:, None] + 1)[:, 0])
    assert (mask.sum(dim=1) == 1).all()
    assert mask[:, -1].all()
    share = torch.bincount(first, minlength=30) / 4000
    assert len(share) == 30
    assert (share - 1 / 30).abs().max() < 5 * (1 / 30 / 4000) ** 0.5


def test_text_is_python_and_asks_for_the_next_byte():
    inputs, targets, mask = draw(ByteText(length=512), 64)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    assert mask.all()
    text = bytes(inputs.flatten().tolist())
    assert b"def " in text
    assert b"self." in text
    assert text.count(b" ") > 0.15 * len(text)


def test_held_out_text_is_other_text():
    train, held_out = ByteText(), ByteText(part="held-out")
    assert train.fingerprint() != held_out.fingerprint()
    assert train.fingerprint() == ByteText(length=9).fingerprint()


@pytest.mark.parametrize("depth", [None, 0.0, 0.3, 1.0])
def test_a_needle_lies_at_its_depth_in_real_text(depth):
    task = Needle(length=200, depth=depth)
    inputs, targets, mask = draw(task, 300)
    assert (mask.sum(dim=1) == 4).all()
    assert mask[:, -4:].all()
    places = []
    for row, answer in zip(inputs.tolist(), targets[:, -4:].tolist(), strict=True):
        text = bytes(row) + bytes(answer[-1:])
        name, digits = text[-len("abc is 1234") :][:3].decode(), bytes(answer).decode()
        assert digits.isdigit()
        assert text.endswith(QUESTION.format(name=name, digits=digits).encode())
        fact = FACT.format(name=name, digits=digits).encode()
        assert text.count(fact) == 1
        places.append(text.index(fact))
    room = 201 - len(fact) - (len(fact) - 2)
    if depth is None:
        assert min(places) < 0.1 * room
        assert max(places) > 0.9 * room
        assert abs(sum(places) / len(places) - room / 2) < 5 * room / 12**0.5 / 300**0.5
    else:
        assert set(places) == {round(depth * room)}


def test_digits_can_be_told_apart_and_are_not_all_alike():
    assert glyphs().shape == (len(FONTS), 10, 32, 32)
    train, test = draw(SequentialDigits()), draw(SequentialDigits(), seed=1)
    images, labels = train.inputs.double(), train.targets[:, -1]
    assert set(labels.tolist()) == set(range(10))
    assert images.max() == 16
    # The nearest class mean finds far more than one in ten, far less than all: a task, but no trivial one.
    means = torch.stack([images[labels == digit].mean(dim=0) for digit in range(10)])
    found = torch.cdist(test.inputs.double(), means).argmin(dim=1)
    assert 0.5 < (found == test.targets[:, -1]).double().mean() < 0.95
    assert (test.mask.sum(dim=1) == 1).all()
    assert test.mask[:, -1].all()


def test_larger_digits_are_the_same_pictures():
    small, large = (draw(SequentialDigits(length=length), 2000) for length in (64, 256))
    assert torch.equal(small.targets[:, -1], large.targets[:, -1])
    shrunk = torch.nn.functional.avg_pool2d(large.inputs.double().view(2000, 16, 16), 2).flatten(1)
    correlation = torch.corrcoef(torch.stack([shrunk.flatten(), small.inputs.double().flatten()]))[0, 1]
    assert correlation > 0.9


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        (MQAR(), {"length": 63}, "length: expected an even number; got 63"),
        (MQAR(), {"vocab_size": 63}, "vocab_size: expected an even number; got 63"),
        (MQAR(), {"pairs": 0}, "pairs: expected at least 1; got 0"),
        (MQAR(), {"pairs": 17}, "pairs: expected at most length / 4 = 16; got 17"),
        (MQAR(), {"vocab_size": 16}, "pairs: expected less than 8 keys; got 8"),
        (MQAR(), {"power": 0.0}, "power: expected a number > 0; got 0.0"),
        (SelectiveCopying(), {"tokens": 33}, "tokens: expected 1 to length / 2 = 32; got 33"),
        (SelectiveCopying(), {"vocab_size": 2}, "vocab_size: expected at least 3: noise, marker and a token; got 2"),
        (InductionHeads(), {"length": 2}, "length: expected at least 3; got 2"),
        (InductionHeads(), {"vocab_size": 1}, "vocab_size: expected at least 2; got 1"),
        (ByteText(), {"vocab_size": 128}, "vocab_size: expected 256, the bytes; got 128"),
        (ByteText(), {"part": "test"}, "part: expected train or held-out; got 'test'"),
        (ByteText(), {"length": 10**9}, "length: expected 1 to less than the text; got 1000000000"),
        (Needle(), {"depth": 1.5}, "depth: expected None or a number from 0 to 1; got 1.5"),
        (Needle(), {"length": 63}, "length: expected at least 64, room for fact and question; got 63"),
        (SequentialDigits(), {"length": 100}, "length: expected 16, 64, 256 or 1024 pixels; got 100"),
        (SequentialDigits(), {"vocab_size": 10}, "vocab_size: expected 17, the grey levels; got 10"),
    ],
)
def test_bad_settings_are_named(task, change, message):
    with pytest.raises(ValueError, match="^" + message.replace(".", r"\.") + "$"):
        replace(task, **change)
