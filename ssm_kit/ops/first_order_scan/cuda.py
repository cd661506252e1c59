"""The first-order scan on a GPU, in Triton (`_kernels`).

A program owns the channels of one warp and walks through time with their states in registers. Channels lie side by
side in memory, so a step of 32 lanes is a full line. One step is one multiply-add on 12 bytes (float32): only the
memory counts, and the art is to have enough bytes on their way. So tiles of several steps are asked for before the
tile that is used now. Where few channels leave the GPU idle, time is cut into segments, as in `chunked.py`:
`summarize` gives each segment's decay and its last state from zero, and `scan` starts from what came before it.

Bytes at 32768 sequences of 4096 steps: forward reads a, b, writes h, 1.61 GB in float32; backward reads a, h, h̄ and
writes ā, b̄, 2.68 GB. At the 4274 GB/s of an H200's copy: 0.377 and 0.628 ms; half of that in bfloat16. FLOPs, 2 and 3
per number, take a hundredth of it. Segments read a and b twice, five transfers in place of three.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from ssm_kit.ops._autograd import custom_operator, with_gradients
from ssm_kit.ops._gpu import processors, unsupported_dtype, with_dense_channels
from ssm_kit.ops.first_order_scan import _kernels

unsupported = unsupported_dtype


class Plan(NamedTuple):
    """How a scan is cut: `vector` channels to each of 32 threads; tiles of `rows` steps, `ahead` of them on their way
    while one is used; time in `segments`, whole multiples of rows · ahead.
    """

    rows: int
    ahead: int
    vector: int
    segments: int
    segment_length: int

    @property
    def block(self) -> int:
        return 32 * self.vector


_TILES = {(4, False): (8, 3), (4, True): (16, 1), (2, False): (32, 1), (2, True): (16, 2)}
"""(bytes of a number, gradient?) -> (rows, ahead): the fastest of those tried on an H200, see benchmarks/README.md."""


def plan(a: Tensor, gradient: bool) -> Plan:
    """The cut for a (B, L, D); where sequences are few, time in segments."""
    batch, length, channels = a.shape
    rows, ahead = _TILES[a.element_size(), gradient]
    programs = batch * triton.cdiv(channels, 64)
    wanted = 8 * processors(a.device)
    segments = max(1, min(wanted // programs, length // 512)) if 4 * programs < wanted else 1
    segment_length = triton.cdiv(triton.cdiv(length, segments), rows * ahead) * rows * ahead
    return Plan(rows, ahead, 2, triton.cdiv(length, segment_length), segment_length)


def forward(a: Tensor, b: Tensor, initial: Tensor | None, reverse: bool) -> tuple[Tensor, Tensor]:
    """All states (B, L, D) in the common dtype of a and b, and the last (B, D) in float32."""
    h = torch.empty(a.shape, dtype=torch.promote_types(a.dtype, b.dtype), device=a.device)
    final = h.new_empty((h.shape[0], h.shape[2]), dtype=torch.float32)
    launch(plan(a, False), a, b, initial, h, final, step=-1 if reverse else 1)
    return h, final


def backward(
    a: Tensor, h: Tensor, initial: Tensor | None, dh: Tensor, dfinal: Tensor, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of a, b (in the dtype of h) and the initial state (B, D) in float32."""
    da, db = torch.empty_like(a, memory_format=torch.contiguous_format), torch.empty_like(h)
    dinitial = torch.empty_like(dfinal)
    gradient = (h, None if initial is None else initial.contiguous(), da)
    launch(plan(a, True), a, dh, dfinal, db, dinitial, gradient, step=1 if reverse else -1)
    return da, db, dinitial


def launch(
    cut: Plan, a: Tensor, b: Tensor, initial: Tensor | None, h: Tensor, final: Tensor,
    gradient: tuple[Tensor | None, ...] = (None, None, None), *, step: int,
) -> None:  # fmt: skip
    batch, length, channels = a.shape
    a, b = with_dense_channels(a), with_dense_channels(b)
    initial = None if initial is None else initial.contiguous()
    sizes = (length, cut.segments, cut.segment_length, a.stride(0), b.stride(0))
    known = {"channels": channels, "a_time": a.stride(1), "b_time": b.stride(1), "STEP": step}
    known |= {"ROWS": cut.rows, "VECTOR": cut.vector, "BLOCK": cut.block, "num_warps": 1}
    programs = batch * triton.cdiv(channels, cut.block)
    products = lasts = None
    with torch.cuda.device_of(a):
        if cut.segments > 1:
            products, lasts = final.new_empty((2, batch, cut.segments - 1, channels)).unbind()
            shift = int(gradient[0] is not None)
            _kernels.summarize[(programs * (cut.segments - 1),)](a, b, products, lasts, *sizes, SHIFT=shift, **known)
        _kernels.scan[(programs * cut.segments,)](
            a, b, initial, products, lasts, h, final, *gradient, *sizes, AHEAD=cut.ahead, **known
        )


def _fake_forward(a: Tensor, b: Tensor, initial: Tensor | None, reverse: bool) -> tuple[Tensor, Tensor]:
    h = torch.empty(a.shape, dtype=torch.promote_types(a.dtype, b.dtype), device=a.device)
    return h, h.new_empty((h.shape[0], h.shape[2]), dtype=torch.float32)


def _fake_backward(a: Tensor, h: Tensor, initial: Tensor | None, dh: Tensor, dfinal: Tensor, reverse: bool) -> Any:
    return torch.empty_like(a, memory_format=torch.contiguous_format), torch.empty_like(h), torch.empty_like(dfinal)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    a, b, initial, ctx.reverse = inputs
    ctx.save_for_backward(a, output[0], initial)
    ctx.b_dtype = b.dtype


def _gradients(backward: Callable[..., Any], ctx: Any, dh: Tensor, dfinal: Tensor) -> tuple[Tensor | None, ...]:
    a, h, initial = ctx.saved_tensors
    da, db, dinitial = backward(a, h, initial, dh, dfinal, ctx.reverse)
    return da, db.to(ctx.b_dtype), None if initial is None else dinitial.to(initial.dtype), None


_FORWARD = custom_operator(
    "first_order_scan_forward", "(Tensor a, Tensor b, Tensor? initial, bool reverse) -> (Tensor, Tensor)",
    forward, _fake_forward,
)  # fmt: skip
_BACKWARD = custom_operator(
    "first_order_scan_backward",
    "(Tensor a, Tensor h, Tensor? initial, Tensor dh, Tensor dfinal, bool reverse) -> (Tensor, Tensor, Tensor)",
    backward, _fake_backward,
)  # fmt: skip
scan = with_gradients(forward, backward, (_FORWARD, _BACKWARD), _save, _gradients)
"""(a, b, initial_state, reverse) -> (h, final state): `first_order_scan` on the kernels; differentiable once."""


def step(a: Tensor, b: Tensor, state: Tensor) -> Tensor:
    """a · state + b (B, D) in float32, in one launch; without gradients."""
    a, b, state = (tensor.contiguous() for tensor in (a, b, state))
    following = torch.empty_like(state, dtype=torch.float32)
    with torch.cuda.device_of(a):
        _kernels.step[(triton.cdiv(state.numel(), 512),)](a, b, state, following, state.numel(), BLOCK=512)
    return following
