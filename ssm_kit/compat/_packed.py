"""Sequences told apart by `seq_idx`, the Mamba packages' way, as the offsets that the operators take.

`seq_idx` (B, L) holds for every position the number of its sequence. Laid end to end, the rows of a batch are one
packed row whose sequences end where the number changes and where a row ends.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def offsets(seq_idx: Tensor, *, batch: int, length: int) -> Tensor:
    """Return `cu_seqlens` (S + 1,) of all rows laid end to end.

    Raises:
        ValueError: `seq_idx` is no integer tensor of shape (B, L), or marks padding by a number below zero.
    """
    if seq_idx.is_floating_point() or tuple(seq_idx.shape) != (batch, length):
        came = f"{seq_idx.dtype} of shape {tuple(seq_idx.shape)}"
        raise ValueError(f"seq_idx must hold integers of shape (B, L) = {(batch, length)}; got {came}")
    if (seq_idx < 0).any():
        raise ValueError(f"seq_idx must be >= 0 (padding marks are not supported); got {seq_idx.min().item()}")
    starts = F.pad(seq_idx[:, 1:] != seq_idx[:, :-1], (1, 0), value=True)
    return F.pad(starts.flatten().nonzero()[:, 0], (0, 1), value=batch * length)


def lay_end_to_end(tensor: Tensor) -> Tensor:
    """(B, L, ...) -> (1, B L, ...)."""
    return tensor.flatten(0, 1).unsqueeze(0)


def last_of_each_row(states: Tensor, cu_seqlens: Tensor, length: int) -> Tensor:
    """Of the states (S, ...) of all packed sequences, those with which the rows end: (B, ...)."""
    return states[torch.remainder(cu_seqlens[1:], length) == 0]
