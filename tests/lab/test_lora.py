"""LoRA on chosen linear layers: it starts as the model was, trains little, and can be merged."""

import sys

import pytest
import torch
from torch import nn

from ssm_kit.lab import MQAR, Settings, add_lora, merge_lora, train
from ssm_kit.models import LanguageModel, ModelConfig

BLOCKS = {
    "M": {"layer": "Mamba2", "d_state": 4, "headdim": 8, "chunk_size": 8},
    "m": {"layer": "Mamba", "d_state": 4},
    "*": {"layer": "Attention", "num_heads": 2},
    "-": {"layer": "MLP", "d_ff": 24},
}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return LanguageModel(ModelConfig(vocab_size=32, d_model=16, pattern="Mm*-", blocks=BLOCKS))


@pytest.fixture
def ids():
    return torch.randint(32, (2, 12), generator=torch.Generator().manual_seed(1))


def test_every_linear_layer_that_is_called_can_be_adapted(model, ids):
    linear = {name for name, part in model.named_modules() if isinstance(part, nn.Linear) and "dt_proj" not in name}
    before = model(ids)[0]
    changed = add_lora(model, {name.rpartition(".")[2] for name in linear}, rank=2)
    assert set(changed) == linear
    assert torch.equal(model(ids)[0], before)
    model(ids)[0].square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == ("lora_" in name), name
        if "lora_B" in name:
            assert parameter.grad.abs().max() > 0, name


def test_an_addition_that_cannot_act_is_noticed(model):
    add_lora(model, ["in_proj", "dt_proj"], rank=2)
    with pytest.warns(RuntimeWarning, match=r"does not depend on layers\.1\.mixer\.dt_proj\.lora_A\.\w+\.weight, "):
        train(model, MQAR(length=16, pairs=3, vocab_size=32), Settings(steps=1, warmup=0), progress=False)


def test_training_changes_the_additions_only_and_merging_keeps_the_function(model, ids):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    changed = add_lora(model, ["in_proj", "out_proj"], rank=2, alpha=4)
    assert changed == [f"layers.{i}.mixer.{side}_proj" for i in range(2) for side in ("in", "out")]
    train(model, MQAR(length=16, pairs=3, vocab_size=32), Settings(steps=5, warmup=0, batch_size=4), progress=False)
    for name, tensor in model.state_dict().items():
        if "lora_" not in name:
            assert torch.equal(tensor, before[name.replace(".base_layer", "")]), name
    trained = model(ids)[0]
    stepped, cache = [], None
    for t in range(ids.shape[1]):  # decoding passes through the additions too
        logits, cache = model.step(ids[:, t], cache)
        stepped.append(logits)
    torch.testing.assert_close(torch.stack(stepped, dim=1), trained, rtol=1e-4, atol=1e-5)
    merge_lora(model)
    torch.testing.assert_close(model(ids)[0], trained, rtol=1e-4, atol=1e-5)
    after = model.state_dict()
    assert after.keys() == before.keys()
    different = {name for name in before if not torch.equal(before[name], after[name])}
    assert different == {f"{name}.weight" for name in changed}
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("targets", "rank", "message"),
    [
        (["conv1d"], 8, r"targets: expected names of linear layers, of .*in_proj.*; got \['conv1d'\]"),
        ([], 8, "targets: expected names of linear layers"),
        (["in_proj"], 0, "rank: expected at least 1; got 0"),
    ],
)
def test_bad_arguments_are_named(model, targets, rank, message):
    with pytest.raises(ValueError, match=message):
        add_lora(model, targets, rank=rank)


def test_without_peft_it_says_what_to_install(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"add_lora needs peft: pip install \"ssm_kit\[lab\]\""):
        add_lora(model, ["in_proj"])
