"""What measurements share: a commit known before any work, results kept whatever they are, scripts that run alike."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from experiments import machine
from ssm_kit import results

ROOT = Path(__file__).parents[2]
MAIN = '\nif __name__ == "__main__":\n'
SCRIPTS = [path for path in (ROOT / "experiments").glob("*.py") if MAIN in path.read_text(encoding="utf-8")]


def git(answer):
    """A git that gives this answer, or raises it."""

    def check_output(command, **kwargs):
        if isinstance(answer, Exception):
            raise answer
        return answer

    return check_output


def never():
    pytest.fail("measured in vain")


def test_the_commit_is_the_one_given_or_that_of_git(monkeypatch):
    monkeypatch.setattr(subprocess, "check_output", git("89ab" * 10 + "\n"))
    assert machine.commit("0123abc") == "0123abc"
    for missing in (None, ""):
        assert machine.commit(missing) == "89ab" * 10


@pytest.mark.parametrize("answer", [FileNotFoundError("git"), subprocess.CalledProcessError(128, "git")])
def test_without_a_commit_nothing_is_measured(monkeypatch, tmp_path, answer):
    monkeypatch.setattr(subprocess, "check_output", git(answer))
    monkeypatch.setattr(sys, "argv", ["script", "--out", str(tmp_path / "result.json")])
    with pytest.raises(SystemExit, match=r"^commit: git does not know it here; pass --commit$"):
        machine.run("experiments/script.py", "Nothing", never, device="cpu")


def test_what_the_schema_would_refuse_is_no_commit(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["script", "--out", str(tmp_path / "result.json"), "--commit", "unknown"])
    with pytest.raises(SystemExit, match=r"^commit: expected 7 to 40 hexadecimal digits; got 'unknown'$"):
        machine.run("experiments/script.py", "Nothing", never, device="cpu")


def test_a_script_without_a_small_size_needs_a_file(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["script", "--commit", "0123abc"])
    with pytest.raises(SystemExit):
        machine.run("experiments/script.py", "Nothing", never, device="cpu")
    assert "the following arguments are required: --out" in capsys.readouterr().err


def test_runs_that_learn_on_different_gpus_are_one_result_that_names_them_all():
    one = {"commit": "0123abc", "date": "2026-03-01", "gpu": "NVIDIA H200", "torch": "2.13.0", "triton": "3.7.1"}
    parts = {"seeds": [0], "wall_s": 1.0, "settings": {}, "data": [1.0]}
    made = [one, one | {"gpu": "NVIDIA H100", "date": "2026-03-02"}]
    found = machine.result("experiments/script.py", "Learned", machine.on_any_gpu(made), parts)
    assert (found["gpu"], found["date"]) == ("NVIDIA H100, NVIDIA H200", "2026-03-02")
    results.validate(found, "learned")
    with pytest.raises(ValueError, match=r"expected runs of one gpu; got \['NVIDIA H100', 'NVIDIA H200'\]"):
        machine.result("experiments/script.py", "Timed", made, parts)
    with pytest.raises(ValueError, match=r"expected runs of one gpu; got \['NVIDIA H200', 'None'\]"):
        machine.result("experiments/script.py", "Learned", machine.on_any_gpu([one, one | {"gpu": None}]), parts)


def test_a_result_that_the_schema_refuses_is_kept(tmp_path):
    parts = {"seeds": [0], "wall_s": 1.0, "settings": {}, "data": {"ms": float("inf")}}
    made = [machine.provenance("0123abc", "cpu")]
    result = machine.result("experiments/script.py", "Milliseconds", made, parts)
    with pytest.raises(ValueError, match="data: expected finite numbers"):
        machine.write(tmp_path / "result.json", result)
    assert json.loads((tmp_path / "result.json").read_text()) == result
    machine.write(tmp_path / "result.json", result | {"data": [1.0]})
    results.validate(json.loads((tmp_path / "result.json").read_text()), "result")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_says_how_it_is_run(script):
    assert f"\n    python -m experiments.{script.stem} " in script.read_text(encoding="utf-8")


def test_gpus_are_dealt_out_in_turn(monkeypatch):
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    for place in range(5):
        machine.take_gpu(place, "cuda")
        machine.take_gpu(place, "cpu")
    assert taken == [0, 1, 0, 1, 0]
