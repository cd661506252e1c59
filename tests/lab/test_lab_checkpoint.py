"""A checkpoint is whole or refused, and the one before it is there."""

import json
import os

import pytest
import torch

from ssm_kit.lab import CheckpointError, checkpoint
from ssm_kit.lab.checkpoint import Checkpoint


def made(step):
    return Checkpoint(step, {"task": {"pairs": 8}}, {"w": torch.full((64,), float(step)), "n": torch.tensor(step)})


@pytest.fixture
def folder(tmp_path):
    """Three checkpoints saved, one after the other."""
    for step in (10, 20, 30):
        checkpoint.save(tmp_path / "run", made(step))
    return tmp_path / "run"


def same(found, expected):
    assert found[:2] == expected[:2]
    assert found.tensors.keys() == expected.tensors.keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in expected.tensors.items())


def test_what_was_saved_comes_back_and_two_are_kept(folder):
    same(checkpoint.newest(folder), made(30))
    same(checkpoint.load(folder / "checkpoint-00000020.json"), made(20))
    names = {f"checkpoint-000000{step}.{kind}" for step in (20, 30) for kind in ("json", "safetensors")}
    assert {path.name for path in folder.iterdir()} == names


def test_no_checkpoint(tmp_path):
    assert checkpoint.newest(tmp_path) is None
    assert checkpoint.newest(tmp_path / "nowhere") is None


def flip(path):
    data = bytearray(path.read_bytes())
    data[-9] ^= 1  # for tensors, in the middle of the last number
    path.write_bytes(data)


def edit(path):
    record = json.loads(path.read_text())
    record["step"] = 31
    path.write_text(json.dumps(record))


DAMAGE = {
    "tensors cut short": (".safetensors", lambda path: os.truncate(path, path.stat().st_size - 7)),
    "tensors empty": (".safetensors", lambda path: os.truncate(path, 0)),
    "one bit of a tensor": (".safetensors", flip),
    "tensors missing": (".safetensors", lambda path: path.unlink()),
    "record cut short": (".json", lambda path: os.truncate(path, path.stat().st_size // 2)),
    "record empty": (".json", lambda path: os.truncate(path, 0)),
    "record edited": (".json", edit),
    "record of another kind": (".json", lambda path: path.write_text("[1, 2]")),
    "record without checksum": (".json", lambda path: path.write_text('{"step": 30}')),
    "record not text": (".json", lambda path: path.write_bytes(b"\xff\xfe\xff")),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_refused_by_name_and_the_one_before_is_used(folder, damage):
    suffix, harm = DAMAGE[damage]
    path = folder / f"checkpoint-00000030{suffix}"
    harm(path)
    with pytest.raises(CheckpointError, match=path.name):
        checkpoint.load(path.with_suffix(".json"))
    with pytest.warns(RuntimeWarning, match=rf"{path.name}: .*; going back to checkpoint-00000020\.json$"):
        found = checkpoint.newest(folder)
    same(found, made(20))


def test_if_all_are_damaged_all_are_named(folder):
    for path in folder.glob("*.safetensors"):
        flip(path)
    with pytest.raises(CheckpointError, match=r"no checkpoint is intact: .*00000030.*expected SHA-256.*00000020"):
        checkpoint.newest(folder)


@pytest.mark.parametrize("call", ["save_file", "_file_digest", "_sync"])
@pytest.mark.parametrize("time", [1, 2])
def test_a_crash_while_saving_leaves_the_one_before(folder, monkeypatch, call, time):
    """The process dies inside the first or second call of each step of saving."""
    original, calls = getattr(checkpoint, call), []

    def dies(*arguments):
        calls.append(arguments)
        if len(calls) == time:
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, call, dies)
        if time == 1 or call == "_sync":
            with pytest.raises(KeyboardInterrupt):
                checkpoint.save(folder, made(40))
            same(checkpoint.newest(folder), made(30))
        else:
            checkpoint.save(folder, made(40))  # this step has one call
    checkpoint.save(folder, made(50))
    same(checkpoint.newest(folder), made(50))
    assert not list(folder.glob("*.aside"))
    assert len(list(folder.iterdir())) == 4


def test_data_is_on_disk_before_its_name(tmp_path, monkeypatch):
    """Every file is synchronised, then renamed, then its folder is synchronised; the record comes last."""
    events = []
    sync, replace = checkpoint._sync, os.replace
    monkeypatch.setattr(checkpoint, "_sync", lambda path: (events.append(("sync", path.name)), sync(path)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append(("rename", b.name)), replace(a, b)))
    checkpoint.save(tmp_path, made(1))
    expected = []
    for name in ("checkpoint-00000001.safetensors", "checkpoint-00000001.json"):
        expected += [("sync", f"{name}.aside"), ("rename", name)]
        expected += [("sync", tmp_path.name)] if os.name == "posix" else []
    assert events == expected
