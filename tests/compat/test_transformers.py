"""transformers' models on our operators give the numbers that they give on their own loops."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCANS = {
    "mamba": {"causal_conv1d", "selective_scan", "selective_scan_step"},
    "falcon_mamba": {"causal_conv1d", "selective_scan", "selective_scan_step"},
    "jamba": {"causal_conv1d", "selective_scan", "selective_scan_step"},
    "mamba2": {"causal_conv1d", "ssd", "selective_scan_step"},
    "nemotron_h": {"causal_conv1d", "ssd", "selective_scan_step"},
    "qwen3_next": {"causal_conv1d", "gated_delta_rule"},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """All models' numbers, by transformers' own code and by ours, from two processes side by side."""
    folder = tmp_path_factory.mktemp("models")
    environment = os.environ | {"USE_HUB_KERNELS": "0", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    script = str(Path(__file__).with_name("models.py"))
    files = [folder / "theirs.pt", folder / "ours.pt"]
    commands = [[sys.executable, script, str(files[0])], [sys.executable, script, str(files[1]), "install"]]
    processes = [subprocess.Popen(command, env=environment) for command in commands]
    assert [process.wait(timeout=200) for process in processes] == [0, 0]
    return [torch.load(file) for file in files]


@pytest.mark.parametrize("architecture", SCANS)
def test_the_operators_run(runs, architecture):
    theirs, ours = (run[architecture]["calls"] for run in runs)
    assert theirs == []
    assert set(ours) == SCANS[architecture]


def close(ours, theirs):
    scale = max(1.0, theirs.abs().max().item())
    assert torch.isfinite(theirs).all()
    assert (ours - theirs).abs().max().item() <= 1e-5 * scale


@pytest.mark.parametrize("architecture", SCANS)
def test_logits(runs, architecture):
    theirs, ours = (run[architecture] for run in runs)
    close(ours["logits"], theirs["logits"])


@pytest.mark.parametrize("architecture", SCANS)
def test_decoding_with_a_cache(runs, architecture):
    theirs, ours = (run[architecture] for run in runs)
    close(ours["decoded"], theirs["decoded"])


@pytest.mark.parametrize("architecture", SCANS)
def test_gradients(runs, architecture):
    theirs, ours = (run[architecture]["gradients"] for run in runs)
    assert theirs.keys() == ours.keys()
    assert theirs
    for name, gradient in theirs.items():
        close(ours[name], gradient)
