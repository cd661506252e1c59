"""How the kernels of the delta rules are cut and launched."""

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from ssm_kit.ops._gpu import capability, dense_copy, processors, rows
from ssm_kit.ops.gated_delta import _gradients, _inside, _memory

_FORWARD = {"BV": 64, "num_warps": 4, "STAGES": 2}
_BACKWARD = {"BV": 128, "num_warps": 8, "STAGES": 2}
_GRADIENTS = {"BK": 64, "BV": 64, "num_warps": 4, "STAGES": 2}
_TIGHT = {"BV": 32, "num_warps": 8, "STAGES": 1}
"""In place of these where shared memory or registers are short: other GPUs than A100, H100, B200, wide keys."""


class Plan(NamedTuple):
    """Sizes, and how they are cut."""

    sequences: int
    length: int  # of every sequence, or of all together where they are packed
    H: int
    HV: int
    K: int
    V: int
    chunk: int
    packed: bool
    precision: str
    tma: bool  # tiles come through Hopper's copy engine
    segments: int  # parts of every sequence that walk at once
    tight: bool  # shared memory is short

    @property
    def slots(self) -> int:
        """Chunks of all sequences; of packed ones as many as there can be."""
        if self.packed:
            return self.length // self.chunk + self.sequences
        return self.sequences * triton.cdiv(self.length, self.chunk)

    @property
    def memory(self) -> tuple[int, int, int, int]:
        return self.sequences, self.HV, self.K, self.V

    @property
    def padded(self) -> int:
        return max(16, triton.next_power_of_2(self.K))


def plan_of(q: Tensor, v: Tensor, cu_seqlens: Tensor | None) -> Plan:
    batch, length, H, K = q.shape
    single = q.dtype == torch.float32
    sequences = batch if cu_seqlens is None else len(cu_seqlens) - 1
    gpu = capability(q.device) or (9, 0)
    precision = "ieee" if gpu < (8, 0) else "tf32x3" if single else "tf32"
    bulky = single and gpu < (8, 0)  # no tensor cores for float32: products keep both operands in shared memory
    HV, V = v.shape[2:]
    packed = cu_seqlens is not None
    tma = gpu >= (9, 0) and not packed and K * q.itemsize % 16 == 0 and V * q.itemsize % 16 == 0
    chunk = 16 if bulky and K > 128 else 32 if single else 64
    chunks, programs = length // chunk // (sequences if packed else 1), sequences * HV * triton.cdiv(V, 64)
    widest = 64 if bulky else 128  # keys for which Ψ (K, K), which a walk in segments needs, fits in shared memory
    segments = _segments(chunks, programs, q) if widest >= K else 1
    roomy = gpu == (8, 0) or gpu[0] in (9, 10)  # A100, H100, B200: their smaller kin have 99 KiB a block
    tight = K * q.itemsize > 256 or not roomy
    return Plan(sequences, length, H, HV, K, V, chunk, packed, precision, tma, segments, tight)


def _segments(chunks: int, programs: int, q: Tensor) -> int:
    """Parts of a sequence that walk at once: two programs a multiprocessor, and at least 8 chunks each."""
    return max(1, min(2 * processors(q.device) // programs, 16, chunks // 8))


def _tiles(plan: Plan, x: Tensor, *block: int) -> Any:
    """What the kernels' `head_tile` and `matrix_tile` read: a descriptor of 4 or 3 axes, or the tensor."""
    return TensorDescriptor.from_tensor(x, list(block)) if plan.tma and x.numel() else x


def _rows(x: Tensor) -> tuple[Tensor, int]:
    """(B, L, ...): the tensor, copied if it must be, and the distance from one step to the next, also across rows."""
    x = rows(x)
    if x.data_ptr() % 16 or (x.stride(1) * x.itemsize % 16 and not x.is_contiguous()):
        x = dense_copy(x)  # the copy engine wants multiples of 16 bytes
    return x, x.stride(1)


def _sequence_of(plan: Plan, bounds: Tensor | None) -> Tensor | None:
    """The sequence that each slot belongs to, found on the GPU."""
    if bounds is None:
        return None
    firsts = bounds[:-1] // plan.chunk + torch.arange(plan.sequences, device=bounds.device)
    return torch.searchsorted(firsts, torch.arange(plan.slots, device=bounds.device), right=True) - 1


def _kinds(plan: Plan, beta: Tensor | None) -> dict[str, Any]:
    return {
        "K": plan.K,
        "C": plan.chunk,
        "PACKED": plan.packed,
        "CORRECT": beta is not None,
        "PRECISION": plan.precision,
    }


def _walk(
    kernel: Any,
    plan: Plan,
    how: dict[str, int],
    across: Tensor | None,
    write: int,
    *arguments: Any,
    **kinds: Any,
) -> None:
    """A walk in one pass, or where there are segments in two; only the forward walk (write > 0) fills `across`."""
    rows, slices = plan.sequences * plan.HV, triton.cdiv(plan.V, how["BV"])

    def launch(programs: int, ends: Tensor | None, write: int) -> None:
        kernel[(rows, programs, plan.segments)](
            ends, across, *arguments, V=plan.V, K_PAD=plan.padded, WRITE=write, TMA=plan.tma, **kinds, **how
        )

    if across is None:
        launch(slices, None, write)
        return
    ends = across.new_empty(rows, plan.segments, slices * how["BV"], plan.padded)
    launch(slices + (triton.cdiv(plan.padded, how["BV"]) if kernel is _memory.forward_walk else 0), ends, 0)
    launch(slices, ends, write)


def forward(q, k, v, g, beta, initial, bounds, scale, keep):
    plan = plan_of(q, v, bounds)
    C, kinds, how = plan.chunk, _kinds(plan, beta), _fit(plan, _FORWARD)
    (q, stride_q), (k, stride_k), (v, stride_v) = _rows(q), _rows(k), _rows(v)
    (g, stride_g), (beta, stride_beta) = ((None, 0) if x is None else _rows(x) for x in (g, beta))
    o, final, scores, resolvent, factors, across, corrected, states = outputs(plan, q, v, beta, keep)
    _inside.inside[(plan.slots, plan.HV)](
        q, k, g, beta, bounds, _sequence_of(plan, bounds), scores, resolvent, factors, scale,
        plan.length, plan.H, plan.HV, stride_q, stride_k, stride_g, stride_beta,
        K_PAD=plan.padded, GATED=g is not None, **kinds, num_warps=4, maxnreg=128 if plan.precision == "tf32" else None,
    )  # fmt: skip
    _walk(
        _memory.forward_walk, plan, how, across if plan.segments > 1 else None, 2 if keep else 1,
        *(_tiles(plan, x, 1, C, 1, plan.padded) for x in (q, k)), _tiles(plan, v, 1, C, 1, how["BV"]), factors,
        *(_tiles(plan, x, 1, C, C) for x in (scores, resolvent)), initial, bounds, o, corrected, states, final, scale,
        plan.length, plan.H, plan.HV, stride_q, stride_k, stride_v, **kinds,
    )  # fmt: skip
    return o, final, scores, resolvent, factors, across, corrected, states


def outputs(plan: Plan, q: Tensor, v: Tensor, beta: Tensor | None, keep: bool) -> tuple[Tensor, ...]:
    """o, the last memories, and what the backward pass needs: see `_inside.inside` and `_memory.forward_walk`."""
    rows, chunks, square = plan.sequences * plan.HV, plan.slots * plan.HV, (plan.padded, plan.padded)
    return (
        q.new_empty(v.shape),
        q.new_empty(plan.memory, dtype=torch.float32),
        q.new_empty(chunks, plan.chunk, plan.chunk),
        q.new_empty(chunks if beta is not None else 0, plan.chunk, plan.chunk),
        q.new_empty(chunks, 5, plan.chunk, dtype=torch.float32),
        q.new_empty((rows, plan.segments, *square) if plan.segments > 1 else (0,), dtype=torch.float32),
        q.new_empty(v.shape if keep and beta is not None else 0),
        q.new_empty((chunks, plan.V, plan.K) if keep else 0),
    )


def _fit(plan: Plan, how: dict[str, int]) -> dict[str, Any]:
    """How a kernel is cut and run, fit to the sizes."""
    fitted: dict[str, Any] = how | _TIGHT if plan.tight else dict(how)
    widest = min(fitted["BV"], plan.chunk) if plan.tight else fitted["BV"]  # a shorter chunk: least of shared memory
    fitted["BV"] = min(widest, max(16, triton.next_power_of_2(plan.V)))
    if "BK" in fitted:
        fitted["BK"] = min(32 if plan.tight else fitted["BK"], plan.padded)
    return fitted


def backward(do, dfinal, q, k, v, g, beta, bounds, scale, scores, resolvent, factors, across, corrected, states):
    plan = plan_of(q, v, bounds)
    C, kinds, how = plan.chunk, _kinds(plan, beta), _fit(plan, _BACKWARD)
    do, dfinal = do.contiguous(), dfinal.contiguous()
    (q, stride_q), (k, stride_k) = _rows(q), _rows(k)
    dinitial, dv, dstates = torch.empty_like(dfinal), q.new_empty(v.shape), torch.empty_like(states)
    dy = torch.empty_like(dv) if beta is not None else dv
    _walk(
        _memory.backward_walk, plan, how, across if plan.segments > 1 else None, 1,
        *(_tiles(plan, x, 1, C, 1, plan.padded) for x in (q, k)), factors,
        *(_tiles(plan, x, 1, C, C) for x in (scores, resolvent)), _tiles(plan, do, 1, C, 1, how["BV"]), dfinal, bounds,
        dy, dv, dstates, dinitial, scale, plan.length, plan.H, plan.HV, stride_q, stride_k, **kinds,
    )  # fmt: skip
    corrected = v.contiguous() if beta is None else corrected
    rest = gradients(plan, q, k, g, beta, bounds, scale, factors, corrected, states, do, dy, dstates)
    dq, dk, dg, dbeta = rest
    return dq, dk, dv, dg, dbeta, dinitial


def gradients(plan, q, k, g, beta, bounds, scale, factors, corrected, states, do, dy, dstates):
    (q, stride_q), (k, stride_k), (g, stride_g) = _rows(q), _rows(k), (None, 0) if g is None else _rows(g)
    how = _fit(plan, _GRADIENTS)
    parts, steps = triton.cdiv(plan.K, how["BK"]), do.shape[:3]
    dq, dk = q.new_empty(*steps, plan.K), q.new_empty(*steps, plan.K)
    dg = q.new_empty((parts, *steps) if g is not None else (0,), dtype=torch.float32)
    dbeta = q.new_empty(steps if beta is not None else (0,), dtype=torch.float32)
    _gradients.gradients[(plan.slots * parts, plan.HV)](
        q, k, g, factors, corrected, states, do, dy, dstates, bounds, _sequence_of(plan, bounds), dq, dk, dg, dbeta,
        scale, plan.length, steps[0] * steps[1], plan.H, plan.HV, stride_q, stride_k, stride_g,
        V=plan.V, GATED=g is not None, **_kinds(plan, beta), **how,
    )  # fmt: skip
    if plan.H < plan.HV:
        dq, dk = (x.unflatten(2, (plan.H, -1)).sum(3) for x in (dq, dk))
    return dq, dk, dg.sum(0) if g is not None else dg, dbeta
