"""One training loop on one process or many: what differs between plain, DDP and FSDP2 is in this file.

>>> with parallel.processes() as device:                       # under torchrun, one process per GPU (or CPU core)
...     train(model.to(device), task, settings, distributed="fsdp")
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeGuard

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ssm_kit.lab.tasks.task import require

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

KINDS = (None, "ddp", "fsdp")


@contextmanager
def processes() -> Iterator[torch.device]:
    """Join the processes that torchrun has started (NCCL on GPUs, gloo on CPUs) and leave them at the end.

    Yields this process's device: its own GPU, or the CPU.

    Raises:
        ValueError: not started by torchrun.
    """
    require("LOCAL_RANK" in os.environ, "environment", "LOCAL_RANK as torchrun sets it", None)
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", device_id=device)
    else:
        device = torch.device("cpu")
        dist.init_process_group("gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """This process's number; 0 where there is only one."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def distribute(model: nn.Module, kind: str | None) -> nn.Module:
    """What to call in place of `model(inputs)`.

    Args:
        model: on this process's device. "fsdp" shards its parameters in place: they become DTensors.
        kind: None for one process; "ddp" keeps a whole model on every process; "fsdp" is torch's FSDP2, which shards
            the members of its outermost ModuleLists (the blocks) one by one, then the rest.

    Raises:
        ValueError: an unknown kind, or one that does not fit the number of processes.
    """
    require(kind in KINDS, "distributed", "None, 'ddp' or 'fsdp'", kind)
    started = dist.is_initialized()
    require((kind is None) != started, "distributed", "'ddp' or 'fsdp' inside processes(), None outside", kind)
    if kind == "ddp":
        return DistributedDataParallel(model)
    if kind == "fsdp":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard  # a second to import, and only needed here

        mesh = init_device_mesh(next(model.parameters()).device.type, (world(),))
        for block in _blocks(model):
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
    return model


def summed(tensor: Tensor) -> Tensor:
    """The sum over all processes."""
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def gathered(tensor: Tensor) -> Tensor:
    """The tensors of all processes, stacked in the order of their ranks."""
    if not dist.is_initialized():
        return tensor[None]
    parts = [torch.empty_like(tensor) for _ in range(world())]
    dist.all_gather(parts, tensor)
    return torch.stack(parts)


def wait() -> None:
    """Wait until all processes are here."""
    if dist.is_initialized():
        dist.barrier()


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all its shards; every process must ask."""
    return tensor.full_tensor() if _is_sharded(tensor) else tensor


def sharded_like(tensor: Tensor, model: Tensor) -> Tensor:
    """A whole tensor, cut as `model` is."""
    if not _is_sharded(model):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(model.device), model.device_mesh, model.placements)


def _is_sharded(tensor: Tensor) -> "TypeGuard[DTensor]":
    # By its attribute, since isinstance would need the class, and with it a second to import it.
    return hasattr(tensor, "full_tensor")


def _blocks(module: nn.Module) -> list[nn.Module]:
    if isinstance(module, nn.ModuleList):
        return list(module)
    return [block for child in module.children() for block in _blocks(child)]
