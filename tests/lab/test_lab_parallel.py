"""Two processes under torchrun train as one does, with DDP and with FSDP2."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed
from lab_worker import EVERY, SETTINGS, TASK, small_model
from torch import nn

from ssm_kit.lab import MQAR, Settings, checkpoint, parallel, train

pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="torch without gloo")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process gives: records, and the checkpoint at its end."""
    folder = tmp_path_factory.mktemp("alone")
    records = train(small_model(), TASK, SETTINGS, folder=folder, checkpoint_every=EVERY, progress=False)
    return records, checkpoint.newest(folder)


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """The folder in which two processes have trained."""
    folder = tmp_path_factory.mktemp("together")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1", f"--master-port={port}"]
    worker = Path(__file__).with_name("lab_worker.py")
    # The loopback interface: a machine's own name is not always one that it can resolve.
    environment = {
        **os.environ,
        "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, *torchrun, str(worker), str(folder), "ddp", "fsdp"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stderr[-4000:]
    return folder


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_give_the_curve_of_one(alone, together, kind):
    expected, last = alone
    records = [json.loads(line) for line in (together / kind / "log.jsonl").read_text().splitlines()]
    assert len(records) == SETTINGS.steps
    for name in ("step", "learning_rate", "accuracy", "loss", "gradient_norm"):
        tolerance = {"rel": 1e-5, "abs": 0} if name != "accuracy" else {"abs": 1.01 / 18}  # one near tie of 18
        assert [r[name] for r in records] == pytest.approx([r[name] for r in expected], **tolerance), name
    found = checkpoint.newest(together / kind)
    assert found.tensors.keys() == last.tensors.keys()
    assert found.tensors["random.cpu"].shape[0] == 2
    for name, tensor in last.tensors.items():
        if name.startswith("model."):  # whole tensors, whatever the sharding
            torch.testing.assert_close(found.tensors[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_one_process_continues_what_two_have_begun(alone, together, kind):
    expected, _ = alone
    folder = together / kind
    for path in folder.glob(f"checkpoint-{SETTINGS.steps:08d}.*"):
        path.unlink()
    assert checkpoint.newest(folder).step < SETTINGS.steps
    records = train(small_model(), TASK, SETTINGS, folder=folder, progress=False)
    assert [r["loss"] for r in records] == pytest.approx([r["loss"] for r in expected], rel=1e-5)


def test_parallel_training_needs_torchrun(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(ValueError, match="environment: expected LOCAL_RANK as torchrun sets it; got None"):
        parallel.processes().__enter__()
    for kind, message in (("ddp", "'ddp' or 'fsdp' inside processes"), ("tp", "None, 'ddp' or 'fsdp'")):
        with pytest.raises(ValueError, match=f"distributed: expected {message}.*; got '{kind}'"):
            train(small_model(), MQAR(), Settings(), distributed=kind, progress=False)


def test_blocks_are_the_members_of_outer_lists():
    experts = nn.ModuleList([nn.Linear(2, 2)])
    block, head = nn.Sequential(nn.Linear(2, 2), experts), nn.Linear(2, 2)
    model = nn.ModuleDict({"layers": nn.ModuleList([block]), "head": head})
    assert parallel._blocks(model) == [block]
