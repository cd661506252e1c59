"""A sequence in pieces on several processes gives the outputs, states and gradients of the whole on one."""

import os
import sys
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
OPERATORS = {"selective_scan": (selective_scan, sequence_parallel_selective_scan), "ssd": (ssd, sequence_parallel_ssd)}


def make(operator: str, length: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    inner, state, skip = ((4,), (4, 3), (4,)) if operator == "selective_scan" else ((4, 2), (4, 2, 3), (4, 2))
    tensors = {"x": noise(2, length, *inner), "z": noise(2, length, *inner), "delta": noise(2, length, 4)}
    tensors |= {"B": noise(2, length, 2, 3), "C": noise(2, length, 2, 3), "D": noise(*skip), "delta_bias": noise(4)}
    A = noise(4, 3) if operator == "selective_scan" else noise(4)
    return tensors | {"A": -A.exp(), "initial_state": noise(2, *state)}


def differentiate(function, tensors, y_weights, state_weights):
    """y, the last state, and the gradients of a weighted sum of both."""
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in tensors.items()}
    y, state = function(**leaves, **OPTIONS)
    loss = (y_weights * y).sum() + (state_weights * state).sum()
    return y, state, dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


def check(operator: str, pieces: tuple[int, ...], group: dist.ProcessGroup) -> None:
    """Compare this rank's piece with the same piece of the whole."""
    rank, whole = dist.get_rank(group), make(operator, sum(pieces))
    cut = slice(sum(pieces[:rank]), sum(pieces[: rank + 1]))
    piece = {name: tensor if name in SHARED else tensor[:, cut] for name, tensor in whole.items()}
    y_weights, state_weights = torch.randn_like(whole["x"]), torch.randn_like(whole["initial_state"])
    for weights in (y_weights, state_weights):
        dist.broadcast(weights, dist.get_global_rank(group, 0), group=group)
    last = rank == len(pieces) - 1  # the whole's last state is the last rank's
    one, many = OPERATORS[operator]
    y, state, gradients = differentiate(one, whole, y_weights, state_weights)
    y_r, state_r, gradients_r = differentiate(
        lambda **t: many(**t, group=group), piece, y_weights[:, cut], state_weights * last
    )
    assert_close(y_r, y[:, cut], 1e-12, "y")
    if last:
        assert_close(state_r, state, 1e-12, "state")
    for name, gradient in gradients_r.items():
        if name in SHARED:
            dist.all_reduce(gradient, group=group)
        assert_close(gradient, gradients[name] if name in SHARED else gradients[name][:, cut], 1e-11, name)


def work(rank: int, store: str) -> None:
    """One process: all ranks, then the first two alone, then one without anybody."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=len(PIECES))
    groups = [dist.new_group(list(range(size))) for size in (3, 2, 1)]
    for size, group in zip((3, 2, 1), groups, strict=True):
        if rank < size:
            for operator in OPERATORS:
                check(operator, PIECES[:size], group)
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available() or sys.platform == "win32", reason="needs torch.distributed with gloo")
def test_pieces_equal_the_whole(tmp_path: Path):
    """Three processes, of which two and one make up groups of their own: values and every gradient."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    mp.spawn(work, (str(tmp_path / "store"),), nprocs=len(PIECES))


def test_without_processes():
    with pytest.raises((RuntimeError, ValueError), match="process group"):
        sequence_parallel_ssd(**make("ssd", 3), delta_softplus=True)
