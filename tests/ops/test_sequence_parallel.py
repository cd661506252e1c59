"""A sequence in pieces on several processes gives the outputs, states and gradients of the whole on one."""

import os
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from oracles import assert_close

from ssm_kit.ops import selective_scan, ssd
from ssm_kit.ops.sequence_parallel import sequence_parallel_selective_scan, sequence_parallel_ssd

PIECES = (5, 40, 1)
"""Steps on each rank: uneven, one of them a single step."""
SHARED = ("A", "D", "delta_bias", "initial_state")
OPTIONS = {"delta_softplus": True, "return_final_state": True}
SCANS = (selective_scan, sequence_parallel_selective_scan)
OPERATORS = {"selective_scan": SCANS, "complex selective_scan": SCANS, "ssd": (ssd, sequence_parallel_ssd)}


def make(operator: str, length: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    inner, state, skip = ((4, 2), (4, 2, 3), (4, 2)) if operator == "ssd" else ((4,), (4, 3), (4,))
    tensors = {"x": noise(2, length, *inner), "z": noise(2, length, *inner), "delta": noise(2, length, 4)}
    tensors |= {"B": noise(2, length, 2, 3), "C": noise(2, length, 2, 3), "D": noise(*skip), "delta_bias": noise(4)}
    tensors |= {"A": -(noise(4) if operator == "ssd" else noise(4, 3)).exp(), "initial_state": noise(2, *state)}
    if operator.startswith("complex"):
        some = ("A", "B", "C", "initial_state")
        tensors |= {name: torch.complex(tensors[name], noise(*tensors[name].shape)) for name in some}
    return tensors


def differentiate(function, tensors, y_weights, state_weights):
    """y, the last state, and the gradients of a weighted sum of both."""
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in tensors.items()}
    y, state = function(**leaves, **OPTIONS)
    loss = ((y_weights * y).sum() + (state_weights * state).sum()).real
    return y, state, dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


def check(operator: str, pieces: tuple[int, ...], group: dist.ProcessGroup, dtype: torch.dtype, limit: float) -> None:
    """Compare this rank's piece with the same piece of the whole in float64."""
    device = f"cuda:{dist.get_rank()}" if dtype == torch.float32 else "cpu"
    rank, whole = dist.get_rank(group), make(operator, sum(pieces))
    whole = {name: rounded(tensor, dtype).to(device).to(tensor.dtype) for name, tensor in whole.items()}
    cut = slice(sum(pieces[:rank]), sum(pieces[: rank + 1]))
    piece = {name: rounded(tensor if name in SHARED else tensor[:, cut], dtype) for name, tensor in whole.items()}
    y_weights, state_weights = torch.randn_like(whole["x"]), torch.randn_like(whole["initial_state"])
    for weights in (y_weights, state_weights):
        dist.broadcast(weights, dist.get_global_rank(group, 0), group=group)
    last = rank == len(pieces) - 1  # the whole's last state is the last rank's
    one, many = OPERATORS[operator]
    y, state, gradients = differentiate(partial(one, backend="torch"), whole, y_weights, state_weights)
    weights = rounded(y_weights[:, cut], dtype), rounded(state_weights * last, dtype)
    y_r, state_r, gradients_r = differentiate(partial(doubled_in_place, many, group), piece, *weights)
    y_r, state_r = y_r / 2, state_r / 2
    gradients_r = {name: gradient / 2 for name, gradient in gradients_r.items()}
    assert_close(y_r.to(y.dtype), y[:, cut], limit, "y")
    if last:
        assert_close(state_r.to(state.dtype), state, limit, "state")
    for name, gradient in gradients_r.items():
        if name in SHARED:
            dist.all_reduce(gradient, group=group)
        expected = gradients[name] if name in SHARED else gradients[name][:, cut]
        assert_close(gradient.to(expected.dtype), expected, 10 * limit, name)


def doubled_in_place(function, group, **tensors):
    """What a caller may do with results that are his own."""
    y, state = function(**tensors, group=group)
    return y.mul_(2), state.mul_(2)


def rounded(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """In `dtype`, or its complex counterpart."""
    return tensor.to(dtype.to_complex() if tensor.is_complex() else dtype)


def work(rank: int, store: str, sizes: tuple[int, ...], dtype: torch.dtype, limit: float) -> None:
    """One process of `sizes[0]`: all ranks, then fewer, then one without anybody. In float32 each has a GPU."""
    torch.set_num_threads(1)
    if dtype == torch.float32:
        torch.cuda.set_device(rank)
    backend = "nccl" if dtype == torch.float32 else "gloo"
    dist.init_process_group(backend, init_method=f"file://{store}", rank=rank, world_size=sizes[0])
    groups = [dist.new_group(list(range(size))) for size in sizes]
    for size, group in zip(sizes, groups, strict=True):
        if rank < size:
            for operator in OPERATORS:
                if dtype == torch.float64 or not operator.startswith("complex"):  # kernels have no complex numbers
                    check(operator, PIECES[:size], group, dtype, limit)
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available() or sys.platform == "win32", reason="needs torch.distributed with gloo")
def test_pieces_equal_the_whole(tmp_path: Path):
    """Three processes, of which two and one make up groups of their own: values and every gradient."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    mp.spawn(work, (str(tmp_path / "store"), (3, 2, 1), torch.float64, 1e-12), nprocs=3)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two NVIDIA GPUs")
def test_pieces_on_two_gpus_equal_the_whole(tmp_path: Path):
    mp.spawn(work, (str(tmp_path / "store"), (2, 1), torch.float32, 1e-5), nprocs=2)


def test_without_processes():
    with pytest.raises((RuntimeError, ValueError), match="process group"):
        sequence_parallel_ssd(**make("ssd", 3), delta_softplus=True)
