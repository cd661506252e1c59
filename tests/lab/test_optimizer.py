"""Weight decay spares what it must not touch, and the learning rate has its shape."""

import math

import pytest
import torch
from torch import nn

from ssm_kit.lab import MQAR, Settings, train
from ssm_kit.lab.optimizer import decayed, learning_rate, parameter_groups
from ssm_kit.models import LanguageModel, ModelConfig


def small_model(pattern="MM"):
    torch.manual_seed(0)
    block = {"layer": "Mamba2", "d_state": 4, "headdim": 8, "chunk_size": 8}
    return LanguageModel(ModelConfig(vocab_size=16, d_model=8, pattern=pattern, blocks={"M": block}))


def test_a_state_space_model_decays_its_matrices_only():
    names = {name for name, decays in decayed(small_model("M")).items() if decays}
    layer = "layers.0.mixer"
    assert names == {"embeddings.weight", *(f"{layer}.{w}.weight" for w in ("in_proj", "conv1d", "out_proj"))}


def test_a_marked_matrix_is_spared_and_a_frozen_one_is_left_out():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4), nn.Linear(4, 5))
    model[0].weight._no_weight_decay = True
    model[2].requires_grad_(False)
    assert decayed(model) == {"0.weight": False, "0.bias": False, "1.weight": True, "1.bias": False}
    decays, spared = parameter_groups(model, decayed(model), 0.3)
    assert decays == {"params": [model[1].weight], "weight_decay": 0.3}
    assert spared == {"params": [model[0].weight, model[0].bias, model[1].bias], "weight_decay": 0.0}


def test_training_decays_exactly_the_first_group():
    """With gradients of zero, AdamW changes a parameter by decay alone."""

    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.matrix, self.vector, self.marked = (nn.Parameter(torch.ones(s)) for s in ((2, 2), (2,), (2, 2)))
            self.marked._no_weight_decay = True

        def forward(self, ids):
            return 0.0 * (self.matrix.sum() + self.vector.sum() + self.marked.sum()) + torch.zeros(*ids.shape, 64)

    model = Constant()
    train(model, MQAR(), Settings(steps=1, batch_size=1, warmup=1, learning_rate=0.1, weight_decay=0.5), progress=False)
    assert torch.equal(model.vector, torch.ones(2))
    assert torch.equal(model.marked, torch.ones(2, 2))
    torch.testing.assert_close(model.matrix, torch.full((2, 2), 1 - 0.1 * 0.5))


def test_nothing_to_train_is_refused():
    with pytest.raises(ValueError, match="model: expected parameters with requires_grad; got 2 without"):
        train(nn.Linear(2, 2).requires_grad_(False), MQAR(), Settings(), progress=False)


def test_the_learning_rate_rises_and_falls():
    rates = [learning_rate(step, steps=110, warmup=10, peak=2.0, final=0.1) for step in range(110)]
    assert rates[:10] == pytest.approx([0.2 * k for k in range(1, 11)])
    assert rates[10] == 2.0
    assert rates[-1] == pytest.approx(0.2)
    assert rates == sorted(rates[:10]) + sorted(rates[10:], reverse=True)
    assert rates[10 + 33] == pytest.approx(2.0 * (0.1 + 0.9 * (1 + math.cos(math.pi / 3)) / 2))


def test_warm_up_alone_and_a_single_step():
    assert [learning_rate(k, steps=2, warmup=2, peak=1.0, final=0.0) for k in range(2)] == [0.5, 1.0]
    assert learning_rate(0, steps=1, warmup=0, peak=1.0, final=0.0) == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps: expected at least 1; got 0"),
        ({"batch_size": 0}, "batch_size: expected at least 1; got 0"),
        ({"learning_rate": 0.0}, "learning_rate: expected a number > 0; got 0.0"),
        ({"warmup": 501}, "warmup: expected 0 to steps; got 501"),
        ({"final": 1.5}, "final: expected 0 to 1; got 1.5"),
        ({"weight_decay": -1.0}, "weight_decay: expected a number >= 0; got -1.0"),
        ({"beta1": 1.0}, "beta1: expected 0 to below 1; got 1.0"),
        ({"beta2": -0.1}, "beta2: expected 0 to below 1; got -0.1"),
        ({"clip": 0.0}, "clip: expected a number > 0; got 0.0"),
        ({"precision": "fp16"}, 'precision: expected "fp32" or "bf16"; got \'fp16\''),
    ],
)
def test_bad_settings_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        Settings(**change)
