"""Checkpoints on disk, in transformers' layout and in mamba_ssm's, give transformers' logits; pickles stay closed."""

import json
import os

import pytest
import references
import torch
from safetensors.torch import load_file, save_file

from ssm_kit.models import load_pretrained

FAMILIES = ["mamba", "mamba2", "falcon_mamba"]


@torch.no_grad()
def same(folder, theirs, **options):
    logits = load_pretrained(folder, **options)(references.ids())[0]
    expected = references.sequence(theirs)
    return (logits - expected).abs().max() <= 1e-5 * expected.abs().max()


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


# transformers' layout


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", FAMILIES)
def test_transformers_layout(architecture, tied, tmp_path):
    theirs = references.build(architecture, tie_word_embeddings=tied)
    theirs.save_pretrained(tmp_path)
    assert ("lm_head.weight" in load_file(tmp_path / "model.safetensors")) != tied
    assert same(tmp_path, theirs)
    assert same(str(tmp_path), theirs)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_a_config_with_nothing_but_what_differs(architecture, tmp_path):
    """Old checkpoints leave out what was the default: it must be the default here too."""
    changes = {"layer_norm_epsilon": 1e-5, "time_step_rank": "auto"}
    if architecture == "mamba2":
        changes |= {
            "hidden_size": 32,
            "num_heads": 128,
            "head_dim": 64,
            "expand": 256,
            "n_groups": 8,
            "state_size": 128,
        }
    theirs = references.build(architecture, **changes)
    theirs.save_pretrained(tmp_path)
    kept = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({name: config[name] for name in kept}))
    assert same(tmp_path, theirs)


def test_several_files(tmp_path):
    theirs = references.build("mamba2")
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 2
    assert same(tmp_path, theirs)
    shards[1].unlink()
    with pytest.raises(ValueError, match=rf"{shards[1].name} must be there; got no such file"):
        load_pretrained(tmp_path)
    edit(tmp_path / "model.safetensors.index.json", weight_map=None)
    with pytest.raises(ValueError, match=r"index\.json must hold a weight_map; got None"):
        load_pretrained(tmp_path)


# mamba_ssm's layout


def mamba_ssm_layout(theirs, folder, ssm_cfg, **changes):
    """The model as the authors' package would have written it, but as safetensors."""
    weights = {name.replace("embeddings.", "embedding."): tensor for name, tensor in theirs.state_dict().items()}
    save_file({name: tensor.clone() for name, tensor in weights.items()}, folder / "model.safetensors")
    config = {"d_model": 32, "n_layer": 2, "vocab_size": 61, "ssm_cfg": ssm_cfg, "rms_norm": True}
    config |= {"residual_in_fp32": True, "fused_add_norm": True, "pad_vocab_size_multiple": 8}
    (folder / "config.json").write_text(json.dumps(config | changes))
    return weights


SSM_CFG = {
    "mamba": {"dt_rank": 4},
    "mamba2": {"layer": "Mamba2", "d_state": 16, "headdim": 8, "ngroups": 2, "chunk_size": 8},
}


@pytest.mark.parametrize("architecture", SSM_CFG)
def test_mamba_ssm_layout(architecture, tmp_path):
    theirs = references.build(architecture, layer_norm_epsilon=1e-5, tie_word_embeddings=True)
    mamba_ssm_layout(theirs, tmp_path, SSM_CFG[architecture])
    assert same(tmp_path, theirs)


def test_the_small_print_of_mamba2_130m(tmp_path):
    """Its config.json says this much; attention and MLPs, which others of its series have, it has none."""
    theirs = references.build("mamba2", layer_norm_epsilon=1e-5, n_groups=1, state_size=128, head_dim=64, num_heads=1)
    changes = {"d_intermediate": 0, "attn_layer_idx": [], "attn_cfg": {}, "tie_embeddings": False}
    mamba_ssm_layout(theirs, tmp_path, {"layer": "Mamba2"}, **changes, pad_vocab_size_multiple=16)
    assert same(tmp_path, theirs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rms_norm": False}, "config.rms_norm must be True; got False"),
        ({"attn_layer_idx": [1]}, r"config.attn_layer_idx must be \[\]; got \[1\]"),
        ({"d_intermediate": 64}, "config.d_intermediate must be 0; got 64"),
        ({"ssm_cfg": {"layer": "Mamba3"}}, "config.ssm_cfg.layer must be one of Mamba1, Mamba2; got 'Mamba3'"),
        ({"ssm_cfg": {"d_has_hdim": True}}, r"blocks\['M'\] must hold arguments of Mamba: .*d_has_hdim"),
        ({"vocab_size": 65}, r"weights must fit the config: (.|\n)*embeddings.weight"),
        ({"n_layer": 3}, r"weights must fit the config: (.|\n)*layers\.2"),
    ],
)
def test_what_mamba_ssm_can_do_and_we_cannot(changes, message, tmp_path):
    mamba_ssm_layout(references.build("mamba"), tmp_path, **{"ssm_cfg": {"dt_rank": 4}} | changes)
    with pytest.raises(ValueError, match=message):
        load_pretrained(tmp_path)


# Pickles


@pytest.fixture
def pickled(tmp_path):
    """A folder like the hub's state-spaces/mamba-130m: tied weights in pytorch_model.bin."""
    theirs = references.build("mamba", layer_norm_epsilon=1e-5)
    weights = mamba_ssm_layout(theirs, tmp_path, {"dt_rank": 4})
    (tmp_path / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "pytorch_model.bin")
    return theirs, tmp_path


def test_pickles_are_refused_with_advice_that_works(pickled, monkeypatch):
    theirs, folder = pickled
    with pytest.raises(ValueError, match=r"must hold model\.safetensors; got pytorch_model\.bin") as refusal:
        load_pretrained(folder)
    monkeypatch.chdir(folder)
    exec(str(refusal.value).split("\n\n")[1], {})
    assert same(folder, theirs)


def test_a_trap_is_not_sprung(pickled):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(folder / "sprung"),)

    _, folder = pickled
    torch.save({"backbone.embedding.weight": Trap()}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"Pickled weights are not opened"):
        load_pretrained(folder)
    assert not (folder / "sprung").exists()


# The hub, damage, options


def test_from_the_hub(tmp_path, monkeypatch):
    theirs, calls = references.build("mamba"), []
    theirs.save_pretrained(tmp_path)

    def snapshot_download(name, **options):
        calls.append((name, options))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert same("state-spaces/mamba-130m-hf", theirs, revision="main")
    [(name, options)] = calls
    assert (name, options["revision"]) == ("state-spaces/mamba-130m-hf", "main")
    assert options["allow_patterns"] == ["config.json", "*.safetensors", "model.safetensors.index.json"]


def test_no_network(monkeypatch):
    from huggingface_hub.errors import LocalEntryNotFoundError

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(LocalEntryNotFoundError):
        load_pretrained("nobody/nothing-at-all")


@pytest.mark.parametrize("kept", [0, 4, 1000, -1])
def test_cut_files(kept, tmp_path):
    references.build("mamba").save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"model\.safetensors must be a whole safetensors file; got one that is cut"):
        load_pretrained(tmp_path)


def test_another_family(tmp_path):
    references.build("jamba").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"must be of a family among mamba, mamba2, falcon_mamba; got 'jamba'"):
        load_pretrained(tmp_path)


def test_dtype_and_device(tmp_path):
    references.build("mamba").to(torch.bfloat16).save_pretrained(tmp_path)
    assert load_pretrained(tmp_path).embeddings.weight.dtype == torch.bfloat16
    weight = load_pretrained(tmp_path, dtype=torch.float32, device="meta").embeddings.weight
    assert (weight.dtype, weight.device.type) == (torch.float32, "meta")
