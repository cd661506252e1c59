"""Tasks for sequence models: sources of (inputs, targets, mask) batches, each a pure function of a seed and an index.

>>> inputs, targets, mask = MQAR(pairs=8).batch(64, seed=0, index=0)
"""

from ssm_kit.lab.tasks.copying import SelectiveCopying
from ssm_kit.lab.tasks.digits import SequentialDigits
from ssm_kit.lab.tasks.induction import InductionHeads
from ssm_kit.lab.tasks.mqar import MQAR
from ssm_kit.lab.tasks.needle import Needle
from ssm_kit.lab.tasks.task import Batch, Task
from ssm_kit.lab.tasks.text import ByteText

__all__ = ["MQAR", "Batch", "ByteText", "InductionHeads", "Needle", "SelectiveCopying", "SequentialDigits", "Task"]
