"""One training run in a process of its own, to be killed, resumed, or started several times by torchrun.

python lab_worker.py FOLDER                     one process
torchrun ... lab_worker.py FOLDER ddp fsdp      several, into FOLDER/ddp and FOLDER/fsdp
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F

from ssm_kit.lab import MQAR, Settings, parallel, train
from ssm_kit.models import LanguageModel, ModelConfig

TASK = MQAR(length=16, pairs=3, vocab_size=32)
SETTINGS = Settings(steps=30, batch_size=6, warmup=5, learning_rate=1e-2, seed=1)
EVERY = 4


def small_model(dropout=0.0, d_model=8):
    """Two Mamba-2 blocks, tied embeddings; with dropout, training also draws random numbers."""
    torch.manual_seed(0)
    block = {"layer": "Mamba2", "d_state": 4, "headdim": 8, "chunk_size": 8}
    model = LanguageModel(ModelConfig(vocab_size=32, d_model=d_model, pattern="MM", blocks={"M": block}))
    model.norm_f.register_forward_hook(lambda norm, _, x: F.dropout(x, dropout, norm.training))
    return model


def main():
    torch.set_num_threads(1)
    folder, *kinds = Path(sys.argv[1]), *sys.argv[2:]
    if not kinds:
        train(small_model(dropout=0.1), TASK, SETTINGS, folder=folder, checkpoint_every=EVERY, log_every=1)
        return
    with parallel.processes() as device:
        for kind in kinds:
            train(
                small_model().to(device), TASK, SETTINGS, folder=folder / kind, distributed=kind, checkpoint_every=EVERY
            )


if __name__ == "__main__":
    main()
