"""A config is plain data: normalised, checked, and the same again after a round trip through JSON."""

import json

import pytest

from ssm_kit.models import ModelConfig

PLAIN = {
    "vocab_size": 8,
    "d_model": 4,
    "pattern": "M-M-*",
    "blocks": {"M": "Mamba2", "-": {"layer": "MLP", "d_ff": 8}, "*": {"layer": "Attention", "num_heads": 2}},
}


def test_normalised():
    config = ModelConfig(**PLAIN)
    assert config.pattern == ("M", "-", "M", "-", "*")
    assert config.blocks["M"] == {"layer": "Mamba2"}
    assert config.blocks["-"] == {"layer": "MLP", "d_ff": 8}


def test_names_longer_than_a_letter():
    config = ModelConfig(8, 4, ["mixer", "mlp"], {"mixer": "Mamba2", "mlp": "MLP"})
    assert config.pattern == ("mixer", "mlp")
    assert config.to_dict()["pattern"] == ["mixer", "mlp"]


def test_a_block_may_wait_unused():
    assert ModelConfig(8, 4, "M", PLAIN["blocks"]).pattern == ("M",)


@pytest.mark.parametrize("pattern", ["M-M-*", ("M", "*")])
def test_through_json(pattern):
    config = ModelConfig(**PLAIN | {"pattern": pattern, "norm_eps": 1e-6, "logit_softcap": 30.0, "tied_head": False})
    plain = json.loads(json.dumps(config.to_dict()))
    assert plain["pattern"] == "".join(pattern)
    assert ModelConfig.from_dict(plain) == config


def test_the_callers_dictionary_stays_as_it_is():
    blocks = {"M": {"layer": "Mamba2"}}
    config = ModelConfig(8, 4, "M", blocks)
    config.blocks["M"]["d_state"] = 16
    assert blocks == {"M": {"layer": "Mamba2"}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": 0}, "vocab_size must be a whole number >= 1; got 0"),
        ({"d_model": 4.0}, "d_model must be a whole number >= 1; got 4.0"),
        ({"norm_eps": 0.0}, "norm_eps must be a number > 0; got 0.0"),
        ({"embedding_scale": -1.0}, "embedding_scale must be a number > 0; got -1.0"),
        ({"logit_softcap": 0.0}, "logit_softcap must be None or a number > 0; got 0.0"),
        ({"tied_head": None}, "tied_head must be True or False; got None"),
        ({"pattern": ""}, "pattern must be at least one block"),
        ({"pattern": "MEM"}, r"pattern must be made of the kinds in blocks, \['M', '-', '\*'\]; got \['E'\]"),
        ({"blocks": {"M": {"d_state": 4}}}, r"blocks\['M'\] must be a layer's name or .*; got {'d_state': 4}"),
    ],
)
def test_refusals(change, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(**PLAIN | change)


def test_foreign_data_is_refused():
    with pytest.raises(ValueError, match=r"config must be complete: .*'vocab_size'\]; got \['d_model'\]"):
        ModelConfig.from_dict({"d_model": 4})
    with pytest.raises(ValueError, match=r"config must be made of .*; got \['dropout'\]"):
        ModelConfig.from_dict(PLAIN | {"dropout": 0.1})
