"""How the selective-scan kernels are cut to size and launched."""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ssm_kit.ops import _gpu, _nvrtc

SPAN = 16
"""Steps between the states that forward keeps for backward: with N = 16 they are as large as x."""

_FOLDER = Path(__file__).parent / "kernels"
_SHARED = ("numbers.cuh", "problem.cuh", "tile.cuh")
_BEFORE = {"backward": ("backward_tile.cuh", "backward_scan.cuh")}
_TYPES = """
#define INLINE __device__ __forceinline__
typedef unsigned int u32;
typedef unsigned short u16;
typedef long long i64;
typedef unsigned long long u64;
struct half_t { u16 bits; };
struct bfloat_t { u16 bits; };
"""
_NAMES = {torch.float32: "float", torch.float16: "half_t", torch.bfloat16: "bfloat_t"}


class Shape(NamedTuple):
    """Constants of a kernel: states and channels per thread, threads per block, steps per tile; what the compiler is
    to unroll, and how many blocks should fit a multiprocessor."""

    states: int
    channels: int
    threads: int
    steps: int
    unroll: int = 2
    resident: int = 1


CARRY = Shape(states=8, channels=1, threads=128, steps=16, unroll=16)
STEP = Shape(states=4, channels=1, threads=128, steps=16, resident=7)


def forward_shape(states: int) -> Shape:
    """For N = 16, 4 blocks fit a multiprocessor; other sizes take the registers that they like."""
    return Shape(states=8, channels=1, threads=128, steps=16, unroll=8, resident=4 if padded(states) == 16 else 1)


def backward_shape(states: int) -> Shape:
    """`unroll` steps at a time are kept in registers; a tile is a span."""
    return Shape(states=4, channels=2, threads=128 if padded(states) == 16 else 64, steps=SPAN, unroll=4, resident=2)


class Launcher:
    """The arguments that all kernels share, in the kernels' order, and how many blocks they take."""

    def __init__(
        self, x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
        bias: Tensor | None, bounds: Tensor | None, softplus: bool,
    ) -> None:  # fmt: skip
        batch, length, self.channels = x.shape
        self.rows = batch if bounds is None else len(bounds) - 1
        self.packed, self.steps, self.length = bounds is not None, batch * length, length
        self.groups, self.states = B.shape[2:]
        self.dtype, self.device, self.A = x.dtype, x.device, A
        rows = [None if tensor is None else _gpu.rows(tensor) for tensor in (x, delta, z, B, C)]
        distances = [0 if tensor is None else tensor.stride(1) for tensor in rows]
        self.wide, self.inputs = rows[:3], rows[3:]
        self.aligned = _aligned(8, self.wide, self.channels // self.groups)
        sizes = (length, self.rows, self.channels, self.groups, self.states)
        self.before = (*rows, *distances, A, D, bias, bounds, *sizes)
        self.options = {"SOFTPLUS": int(softplus), "GATE": int(z is not None)}

    def blocks(self, shape: Shape) -> int:
        """Blocks side by side over the channels; a block stays within a group."""
        per_block = shape.threads * shape.states * shape.channels // padded(self.states)
        return self.groups * -(-self.channels // self.groups // per_block)

    def segments(self, shape: Shape) -> tuple[int, int]:
        """Steps per segment, and how many there are, so that the GPU is busy with few and short sequences too."""
        wanted = 4 * _gpu.processors(self.device) // self.blocks(shape)
        segment = self.length
        if self.rows < wanted:
            segment = min(segment, max(512, self.steps // wanted))
        segment = -(-segment // SPAN) * SPAN
        slots = self.length // segment + self.rows if self.packed else self.rows * -(-self.length // segment)
        return segment, slots

    def carried(self, segment: int, slots: int, dy: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """What each segment makes of no state (of no gradient, with `dy`), and its total of step sizes."""
        return (None, None) if segment >= self.length else self._carry(segment, slots, dy, last=False)

    def left(self, dy: Tensor | None) -> tuple[Tensor, Tensor]:
        """What whole sequences make of no state (of no gradient, with `dy`), and their totals of step sizes."""
        segment, slots = self.segments(CARRY)
        ends, sums = (part.unflatten(0, (self.rows, -1)) for part in self._carry(segment, slots, dy, last=True))
        later = sums.cumsum(1) - sums if dy is not None else sums.flip(1).cumsum(1).flip(1) - sums  # (B, segments, D)
        return (torch.exp(self.A * later[..., None]) * ends).sum(1), sums.sum(1)

    def _carry(self, segment: int, slots: int, dy: Tensor | None, *, last: bool) -> tuple[Tensor, Tensor]:
        ends, sums = self.A.new_empty((slots, *self.A.shape)), self.A.new_empty((slots, self.channels))
        self.run("carry", CARRY, segment, slots, dy, ends, sums, REVERSE=int(dy is not None), LAST=int(last))
        return ends, sums

    def run(self, kernel: str, shape: Shape, segment: int, slots: int, *arguments: Any, **constants: int) -> None:
        """Launch a kernel over all channels and segments."""
        source = kernel_source(kernel, self.dtype, self.states, shape, **self.options, **constants)
        blocks = self.blocks(shape) * slots
        _nvrtc.launch(source, blocks, shape.threads, *self.before, segment, int(self.aligned), *arguments)

    def step(self, state: Tensor, y: Tensor, after: Tensor) -> None:
        """Launch the decode step, whose sequences stand as the steps of one."""
        self.aligned = _aligned(4, self.inputs, self.states) and _aligned(1, [state, self.A])
        slots = max(1, STEP.resident * _gpu.processors(self.device) // self.blocks(STEP))
        segment = -(-self.length // slots)
        self.run("step", STEP, segment, -(-self.length // segment), state, y, after)


@functools.cache
def kernel_source(kernel: str, dtype: torch.dtype, states: int, shape: Shape, **constants: int) -> _nvrtc.Source:
    """The source of a kernel for tensors of a dtype with N = `states`."""
    kept = "float" if dtype == torch.float32 else "bfloat_t"
    numbers = {"N": padded(states), "NS": shape.states, "K": shape.channels, "THREADS": shape.threads,
               "STEPS": shape.steps, "SPAN": SPAN, "UNROLL": shape.unroll, "PART": shape.unroll,
               "RESIDENT": shape.resident}  # fmt: skip
    numbers |= constants
    lines = [_TYPES, f"typedef {_NAMES[dtype]} T;", f"typedef {kept} Saved;"]
    lines += [f"constexpr int {name} = {value};" for name, value in numbers.items()]
    files = (*_SHARED, *_BEFORE.get(kernel, ()), f"{kernel}.cu")
    return _nvrtc.Source(kernel, "\n".join(lines), tuple(_FOLDER / name for name in files))


def padded(states: int) -> int:
    """N as the kernels have it: a power of two, at least 8."""
    return max(8, 1 << (states - 1).bit_length())


def _aligned(count: int, rows: list[Tensor | None], size: int = 0) -> bool:
    """Whether pieces of `count` elements can be read at once: rows that begin at them, and a size that they fill."""
    given = [tensor for tensor in rows if tensor is not None]
    distances = (tensor.stride(1) % count == 0 for tensor in given)
    return size % count == 0 and all(distances) and all(tensor.data_ptr() % 16 == 0 for tensor in given)
