"""Stored results carry the record of how they were made, and a file that does not is refused by name."""

import copy
import json
from pathlib import Path

import pytest

from ssm_kit import results

ROOT = Path(__file__).parents[1]
GOOD = {
    "what": "Time of one pass, in milliseconds",
    "script": "benchmarks/one_pass.py",
    "commit": "0123abc",
    "date": "2026-03-01",
    "gpu": "NVIDIA H200",
    "torch": "2.13.0+cu130",
    "triton": "3.7.1",
    "seeds": [0, 1, 2],
    "wall_s": 12.5,
    "settings": {"dtype": "bfloat16"},
    "data": [{"length": 1024, "ms": 0.5}],
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    return tmp_path


def test_load_returns_what_the_file_holds(folder):
    (folder / "one_pass.json").write_text(json.dumps(GOOD))
    assert results.names() == ["one_pass"]
    assert results.load("one_pass") == GOOD


@pytest.mark.parametrize("name", ["one_passs", "", "../one_pass", None])
def test_an_unknown_name_lists_the_known_ones(folder, name):
    (folder / "one_pass.json").write_text(json.dumps(GOOD))
    with pytest.raises(ValueError, match=r"name: expected one of one_pass; got "):
        results.load(name)


def test_measured_on_a_cpu_without_chance(folder):
    results.validate({**GOOD, "gpu": None, "triton": None, "seeds": [], "wall_s": 3}, "cpu")


@pytest.mark.parametrize("entry", GOOD)
def test_a_missing_entry(entry):
    result = copy.deepcopy(GOOD)
    del result[entry]
    with pytest.raises(ValueError, match="one_pass: expected exactly the entries what, script, "):
        results.validate(result, "one_pass")


@pytest.mark.parametrize(
    ("entry", "value", "expected"),
    [
        ("what", " ", "a sentence"),
        ("what", 3, "str"),
        ("script", "one_pass", "the path of a .py file"),
        ("commit", "HEAD", "7 to 40 hexadecimal digits"),
        ("date", "1 March 2026", "a date as YYYY-MM-DD"),
        ("date", "2026-02-30", "a date as YYYY-MM-DD"),
        ("gpu", "", "a GPU's name or null"),
        ("gpu", 1, "str or null"),
        ("torch", None, "str"),
        ("torch", "latest", "a version number"),
        ("triton", "latest", "a version number or null"),
        ("seeds", [0, "1"], "whole numbers"),
        ("seeds", 0, "list"),
        ("wall_s", -1, "a finite number of seconds > 0"),
        ("wall_s", float("nan"), "a finite number of seconds > 0"),
        ("wall_s", True, "int or float"),
        ("settings", [], "dict"),
        ("data", [], "finite numbers, at least one"),
        ("data", [{"ms": float("nan")}], "finite numbers, at least one"),
        ("data", {"ms": [1.0, float("inf")]}, "finite numbers, at least one"),
    ],
)
def test_a_bad_entry_is_named(entry, value, expected):
    with pytest.raises(ValueError, match=f"one_pass: {entry}: expected {expected}.*; got "):
        results.validate({**GOOD, entry: value}, "one_pass")


@pytest.mark.parametrize("result", [[], "text", {**GOOD, "extra": 1}])
def test_something_else(result):
    with pytest.raises(ValueError, match="one_pass: expected exactly the entries"):
        results.validate(result, "one_pass")


def test_every_shipped_result_follows_the_schema_and_its_script_exists():
    assert results.names(), "no result is shipped"
    for name in results.names():
        assert (ROOT / results.load(name)["script"]).is_file()
        assert name.isidentifier()
