"""How a call of SSD is cut into tiles, chunks and segments for the GPU, and how its tensors reach the kernels."""

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from ssm_kit.ops._gpu import capability
from ssm_kit.ops.ssd._tiles import COPIED, FULL, MASKED

LAUNCHES = {
    "forward": {"STAGES": 2, "num_warps": 4},
    "walk": {"STAGES": 3, "num_warps": 4},
    "across": {"STAGES": 3, "num_warps": 4},
    "inside": {"STAGES": 3, "num_warps": 4},
    "inside, gated": {"STAGES": 2, "num_warps": 4},  # one tile more in each stage, and two programs must fit
}
"""Depth of the loads' pipeline and warps of each kernel, from timings on an H200."""


class Plan(NamedTuple):
    """Sizes, and how they are cut."""

    sequences: int
    length: int  # of every sequence, or of all together where they are packed
    tokens: int
    heads: int
    P: int
    groups: int
    N: int
    block_p: int
    block_n: int
    chunk: int
    exact: bool  # float32 inputs
    small: bool
    packed: bool
    mode: int  # of tiles of the caller's tensors, see `_tiles.tile`
    stored: int  # of tiles of states
    precision: str

    @property
    def slices(self) -> int:
        return self.heads * self.slices_of_head

    @property
    def slices_of_head(self) -> int:
        return ceil(self.P, self.block_p)

    @property
    def columns(self) -> int:
        """Columns of a state that one program of `across` takes."""
        return min(64, self.block_n)

    @property
    def slots(self) -> int:
        """Chunks of all sequences; of packed ones as many as there can be."""
        if self.packed:
            return self.tokens // self.chunk + self.sequences
        return self.sequences * ceil(self.length, self.chunk)

    def cut(self, processors: int) -> tuple[int, int]:
        """Segments, parts of a sequence that run at once, and the pieces of each in the first pass.

        Both are of 8 chunks at least. Segments are for two programs a multiprocessor. The first pass needs all of them
        but one, and its programs are light: pieces are for three.
        """
        lines = self.sequences * self.slices
        segments = max(1, min(2 * processors // lines, 16, self.length // (8 * self.chunk)))
        wanted = 3 * processors // (lines * max(1, segments - 1))
        return segments, max(1, min(wanted, self.length // (8 * segments * self.chunk)))

    def source(self, tensor: Tensor | None, columns: int) -> Any:
        """What the kernels take for a tensor of the caller's, (B, L, ...), by tiles of `columns` columns."""
        if tensor is None or self.mode != COPIED.value:
            return tensor
        width = tensor.shape[2] * tensor.shape[3]
        return TensorDescriptor(tensor, [self.tokens, width], [tensor.stride(1), 1], [self.chunk, columns])

    def states(self, tensor: Tensor | None, columns: int) -> Any:
        """What the kernels take for the states of all slots, by tiles of `columns` columns."""
        if tensor is None or self.stored != COPIED.value:
            return tensor
        lines = self.slots * self.slices * self.block_p
        return TensorDescriptor(tensor, [lines, self.block_n], [self.block_n, 1], [self.block_p, columns])

    def launch(self, kernel: str) -> dict[str, int]:
        # float32 tiles are twice as large: without a pipeline they fit the shared memory of small GPUs.
        return {"STAGES": 1, "num_warps": 4} if self.small or self.exact else LAUNCHES[kernel]

    def shapes(self) -> dict[str, Any]:
        return {
            "P": self.P, "N": self.N, "BLOCK_P": self.block_p, "BLOCK_N": self.block_n, "Q": self.chunk,
            "SLICES": self.slices_of_head, "PACKED": self.packed, "MODE": self.mode, "PRECISION": self.precision,
        }  # fmt: skip


def plan_of(x: Tensor, B: Tensor, cu_seqlens: Tensor | None) -> Plan:
    batch, length, heads, P = x.shape
    groups, N = B.shape[2:]
    # Before Ampere, Triton has no matrix products in hardware: small tiles, or they do not fit the registers.
    gpu, exact = capability(x.device), x.dtype == torch.float32
    small = gpu is not None and gpu < (8, 0)
    block_n = max(16, power(N))
    # A float32 product is six of bfloat16. In tiles of 64 rows these become wgmma on Hopper, each with descriptors of
    # its own in uniform registers; they run out, and the ptxas of CUDA 12.8 (in Triton 3.6 and 3.7) then reads one that
    # nothing has written: dC was wrong for N = 5. Tiles of 32 rows become mma.sync, which has no descriptors.
    chunk = 16 if small else 32 if exact or block_n > 128 else 64
    block_p = min(chunk, max(16, power(P)))
    full = cu_seqlens is None and length % chunk == 0 and P % block_p == 0 and block_n == N
    return Plan(
        batch if cu_seqlens is None else len(cu_seqlens) - 1, length, batch * length, heads, P, groups, N, block_p,
        block_n, chunk, exact, small, cu_seqlens is not None,
        FULL.value if full else MASKED.value, COPIED.value if has_copy_engine(x) else FULL.value,
        "ieee" if small or gpu is None else "bf16x6",
    )  # fmt: skip


def with_copies(plan: Plan, *tensors: Tensor | None) -> Plan:
    """The plan, with bulk copies where the GPU has them and all tensors, as `rows` returns them, are aligned."""
    aligned = all(t.data_ptr() % 16 == 0 and t.stride(1) * t.element_size() % 16 == 0 for t in tensors if t is not None)
    if plan.stored == COPIED.value and plan.mode == FULL.value and aligned and plan.tokens < 2**31:
        return plan._replace(mode=COPIED.value)
    return plan


def compute_dtype(*tensors: Tensor) -> torch.dtype:
    """What x, B and C (given in this order) are computed in: the widest of their types.

    A product's tile has 16 rows and columns at least, so smaller states gain nothing from half precision. They lose:
    the rounding errors of so few numbers do not average out.
    """
    x, B, _ = tensors
    tiny = x.shape[3] < 16 or B.shape[3] < 16
    return torch.float32 if tiny else functools.reduce(torch.promote_types, (tensor.dtype for tensor in tensors))


def has_copy_engine(x: Tensor) -> bool:
    """The interpreter, which has no GPU, is treated like Ampere."""
    return (capability(x.device) or (8, 0)) >= (9, 0)


def ceil(size: int, divisor: int) -> int:
    return -(-size // divisor)


def power(size: int) -> int:
    """The next power of two."""
    return 1 << (size - 1).bit_length()
