"""Several sequences packed end to end along one time axis, told apart by `cu_seqlens`.

`cu_seqlens` = (0, l_1, l_1 + l_2, ..., L) holds S + 1 integers; the packed tensors have batch size 1, (1, L, ...); the
states have one row per sequence, (S, ...). An operator checks with `sequence_bounds`, requires an initial state of
(S, ...), and lets `run_packed` call its own scan on each sequence, so that nothing flows from one to the next:

    bounds = sequence_bounds(cu_seqlens, batch=size["B"], length=size["L"])
    y, states = run_packed(run, bounds, (x, delta, B, C, z), initial_state)

`run(tensors, initial_state)` takes the tensors of one sequence, (1, l, ...) each or None, and its state, (1, ...) or
None; it returns (y, final_state) of the same layout.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor

Run: TypeAlias = Callable[[tuple[Any, ...], Any], tuple[Tensor, Tensor]]


def sequence_bounds(cu_seqlens: Tensor, *, batch: int, length: int) -> list[int]:
    """Check `cu_seqlens` and return it as Python integers, S + 1 of them.

    Raises:
        ValueError: not a one-dimensional tensor of int32 or int64, a batch other than 1, offsets that do not rise
            from 0 to the length, or a sequence without steps.
    """
    _require_bounds(cu_seqlens, batch)
    bounds = cu_seqlens.tolist()
    if bounds[0] != 0 or bounds[-1] != length:
        raise ValueError(f"cu_seqlens must run from 0 to L = {length}; got {bounds[0]} to {bounds[-1]}")
    if any(end <= start for start, end in pairwise(bounds)):
        raise ValueError(f"cu_seqlens must rise at every step (no empty sequence); got {bounds}")
    return bounds


def sequence_count(cu_seqlens: Tensor, *, batch: int, length: int) -> int:
    """S, the number of packed sequences, without waiting for the GPU: `sequence_bounds` for the kernels.

    The offsets themselves are checked on the device: bad ones stop the program at its next synchronisation, as an
    index out of bounds does.

    Raises:
        ValueError: as `sequence_bounds`, but for the offsets.
    """
    _require_bounds(cu_seqlens, batch)
    rising = (cu_seqlens.diff() > 0).all() & (cu_seqlens[0] == 0) & (cu_seqlens[-1] == length)
    torch._assert_async(rising, f"cu_seqlens must rise at every step, from 0 to L = {length}")
    return len(cu_seqlens) - 1


def run_packed(
    run: Run, bounds: list[int], tensors: Sequence[Tensor | None], initial_state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Run an operator on each packed sequence; return y (1, L, ...) and the final states (S, ...).

    Args:
        run: the operator for one sequence (see the module).
        bounds: what `sequence_bounds` returned.
        tensors: (1, L, ...) each, or None.
        initial_state: (S, ...) or None.
    """
    lengths = [end - start for start, end in pairwise(bounds)]
    nothing = [None] * len(lengths)
    # Split rather than slice: the gradient of a slice is as long as all sequences together, once for each of them.
    pieces = zip(*(nothing if tensor is None else tensor.split(lengths, dim=1) for tensor in tensors), strict=True)
    starts = nothing if initial_state is None else initial_state.split(1)
    outputs, states = zip(*(run(piece, start) for piece, start in zip(pieces, starts, strict=True)), strict=True)
    return torch.cat(outputs, dim=1), torch.cat(states)


def _require_bounds(cu_seqlens: Tensor, batch: int) -> None:
    if not isinstance(cu_seqlens, Tensor) or cu_seqlens.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"cu_seqlens must be a tensor of int32 or int64; got {_kind(cu_seqlens)}")
    if cu_seqlens.ndim != 1 or len(cu_seqlens) < 2:
        raise ValueError(f"cu_seqlens must have shape (S + 1,) with S >= 1; got {tuple(cu_seqlens.shape)}")
    if batch != 1:
        raise ValueError(f"cu_seqlens must come with tensors of batch size 1, sequences end to end; got batch {batch}")


def _kind(value: object) -> str:
    return f"a tensor of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
