"""Running an experiment as its docstring says, at its smoke size."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run_smoke(tmp_path_factory):
    """name -> the result of `python -m experiments.name --smoke`."""

    def run(name: str) -> dict:
        out = tmp_path_factory.mktemp(name) / "result.json"
        command = [sys.executable, "-m", f"experiments.{name}", "--smoke", "--out", str(out), "--commit", "0123abc"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(out.read_text())

    return run
