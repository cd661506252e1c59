"""What the page of measurements says of a stored result: what it is, on which machines, how to make it again."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "book" / "_ext"))

from textbook.records import entry

RECORD = {
    "what": "Time of one pass",
    "script": "benchmarks/one_pass.py",
    "date": "2026-03-01",
    "gpu": "NVIDIA H200",
    "torch": "2.13.0",
    "wall_s": 12.4,
    "settings": {},
}


@pytest.mark.parametrize(
    ("changes", "machine"),
    [
        ({}, "one NVIDIA H200"),
        ({"gpu": None}, "a CPU"),
        ({"settings": {"gpus": 4}}, "4 NVIDIA H200"),
        ({"gpu": "NVIDIA H100, NVIDIA H200"}, "NVIDIA H100 and NVIDIA H200"),
    ],
)
def test_an_entry_names_its_machines(changes, machine):
    text = entry("one_pass", RECORD | changes)
    assert f"**one_pass**. Time of one pass. Took 12 s on {machine}, with torch 2.13.0, on 2026-03-01." in text


def test_the_command_to_make_it_again_and_whose_time_was_taken():
    settings = {"launcher": "torchrun --nproc-per-node 2", "wall_s": "sum over runs"}
    text = entry("one_pass", RECORD | {"settings": settings}, "![Picture](/one_pass.png)\n")
    assert "Took 12 s (sum over runs) on " in text
    assert "![Picture](/one_pass.png)" in text
    command = "torchrun --nproc-per-node 2 -m benchmarks.one_pass \\\n    --out ssm_kit/results/one_pass.json"
    assert command in text
