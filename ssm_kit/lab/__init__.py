"""The laboratory: tasks that tell sequence models apart, and one training loop for a laptop, a GPU or several.

>>> from ssm_kit import lab
>>> lab.train(model, lab.MQAR(pairs=8), lab.Settings(steps=500), folder="runs/mqar")
>>> lab.evaluate(model, lab.MQAR(pairs=8))["accuracy"]
"""

from ssm_kit.lab import parallel
from ssm_kit.lab.checkpoint import CheckpointError
from ssm_kit.lab.lora import add_lora, merge_lora
from ssm_kit.lab.settings import Settings
from ssm_kit.lab.tasks import (
    MQAR,
    Batch,
    ByteText,
    InductionHeads,
    Needle,
    SelectiveCopying,
    SequentialDigits,
    Task,
)
from ssm_kit.lab.training import evaluate, train

__all__ = [
    "MQAR",
    "Batch",
    "ByteText",
    "CheckpointError",
    "InductionHeads",
    "Needle",
    "SelectiveCopying",
    "SequentialDigits",
    "Settings",
    "Task",
    "add_lora",
    "evaluate",
    "merge_lora",
    "parallel",
    "train",
]
