"""What one more token costs: the same at every context without attention, more and more with it."""

import pytest
import torch
from small_models import build, random_ids

from benchmarks.generation import STACKS, cache_at, measure
from ssm_kit import cost


@pytest.mark.parametrize("pattern", ["MSMS", "M-*-", "*-*-"])
def test_the_made_up_cache_is_like_a_real_one(pattern):
    model, ids = build(pattern), random_ids(2, 7)
    with torch.no_grad():
        real = model(ids)[1]
        made_up = cache_at(model, 7, 2)
        assert made_up.nbytes == real.nbytes
        assert made_up.kv_bytes == real.kv_bytes
        assert model.step(ids[:, 0], made_up)[1].nbytes == model.step(ids[:, 0], real)[1].nbytes


def test_bytes_by_stack_and_context():
    contexts = (64, 256)
    sizes = {name: measure(pattern, contexts, 1, "cpu", repeats=1)[1] for name, pattern in STACKS.items()}
    assert len(set(sizes["Mamba-2"])) == 1
    for name, layers in (("hybrid, 1/8 attention", 1), ("attention", 8)):
        grown = cost.kv_cache_bytes(layers, 2, 64, contexts[1] - contexts[0], dtype_bytes=4)
        assert sizes[name][1] - sizes[name][0] == grown


def test_a_step_without_attention_does_not_wait_for_the_context():
    """Nothing that it touches is larger; with attention, 64 times the context is many times the work."""
    contexts = (512, 32768)
    (few, many), _ = measure("MM", contexts, 1, "cpu", repeats=9)
    assert many < 2 * few
    (few, many), _ = measure("**", contexts, 1, "cpu", repeats=9)
    assert many > 2 * few
