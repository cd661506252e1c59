"""A saved model comes back exactly, or is refused in plain words."""

import json
import math

import pytest
import torch
from small_models import build, random_ids

from ssm_kit.models import load, save


@pytest.fixture
def folder(hybrid, tmp_path):
    save(hybrid, tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("options", [{}, {"tied_head": False, "logit_softcap": 30.0, "zero_centered_norm": True}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_round_trip(tmp_path, options, dtype):
    model = build("S-M-*-L-", **options).to(dtype)
    save(model, tmp_path)
    again = load(tmp_path)
    assert again.config == model.config
    ours, theirs = again.state_dict(), model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(ours[name].dtype == dtype and torch.equal(ours[name], theirs[name]) for name in theirs)
    ids = random_ids(2, 6)
    with torch.no_grad():
        assert torch.equal(again(ids)[0], model(ids)[0])


def test_what_is_on_disk(folder):
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"]
    plain = json.loads((folder / "config.json").read_text())
    assert plain["config"]["pattern"] == "S-M-*-L-"


def test_infinity_in_strict_json(tmp_path):
    blocks = {"M": {"layer": "Mamba2", "d_state": 8, "headdim": 8, "dt_limit": (0.01, math.inf)}}
    model = build("MM", blocks=blocks)
    save(model, tmp_path)
    plain = json.loads((tmp_path / "config.json").read_text(), parse_constant=pytest.fail)
    assert plain["config"]["blocks"]["M"]["dt_limit"] == [0.01, {"__float__": "Infinity"}]
    assert load(tmp_path).config == model.config


def test_loading_keeps_what_optimisers_need(folder, hybrid):
    def marked(model):
        return [name for name, weight in model.named_parameters() if getattr(weight, "_no_weight_decay", False)]

    model = load(folder)
    assert marked(model) == marked(hybrid)
    assert "layers.0.mixer.A_log" in marked(model)
    model(random_ids(1, 4))[0].sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_dtype_and_device(folder):
    model = load(folder, dtype=torch.float64, device="meta")
    assert {(weight.dtype, weight.is_meta) for weight in model.parameters()} == {(torch.float64, True)}


def test_saving_again_replaces(folder):
    save(build("MM"), folder)
    assert load(folder).config.pattern == ("M", "M")


def test_a_save_that_fails_keeps_what_was_there(folder, hybrid, monkeypatch):
    def full_disk(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("ssm_kit.models.checkpoint.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save(build("MM"), folder)
    assert load(folder).config == hybrid.config


# Damage


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_cut_weights(folder, kept):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"model\.safetensors must be as it was saved, .* it was cut, changed"):
        load(folder)


@pytest.mark.parametrize("place", [0, 50, -5])
def test_one_flipped_bit(folder, place):
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[place] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match=r"model\.safetensors must be as it was saved"):
        load(folder)


def test_weights_of_another_model(folder, tmp_path):
    save(build("MM"), tmp_path / "other")
    (tmp_path / "other" / "model.safetensors").replace(folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors must be as it was saved"):
        load(folder)


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_config_that_does_not_fit(folder):
    plain = json.loads((folder / "config.json").read_text())["config"]
    edit(folder / "config.json", config=plain | {"pattern": "S-M-*-"})
    with pytest.raises(ValueError, match=r"weights must fit the config: (.|\n)*layers\.6\.norm\.weight"):
        load(folder)


@pytest.mark.parametrize("text", ["", '{"model_type": "ssm_kit", ', "[]", "\x00"])
def test_a_damaged_config(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json must (be|hold) (a )?JSON"):
        load(folder)


def test_missing_files(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors must be there; got no such file"):
        load(folder)
    with pytest.raises(ValueError, match=r"config\.json must be there; got no such file"):
        load(folder / "nowhere")


def test_somebody_elses_config(folder):
    edit(folder / "config.json", model_type="llama")
    with pytest.raises(ValueError, match="must be written by ssm_kit; got model_type 'llama'"):
        load(folder)
