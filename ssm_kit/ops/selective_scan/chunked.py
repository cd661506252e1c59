"""The selective scan in chunks of time, on any device, in memory that does not grow with L · N.

The states of all steps, (B, L, D, N), are N times larger than the input, and keeping them is what makes a plain loop
under autograd large. So the forward pass keeps the state at the start of each chunk only, and the backward pass, chunk
by chunk from the last, computes the states inside again. Decays are only ever multiplied, never divided or put into
logarithms, so a decay that underflows to 0 is as harmless as it is in the loop.

The backward pass is the adjoint recurrence. With y_t = Re(C_t h_t) and h_t = a_t h_{t-1} + b_t, the gradient g_t with
respect to h_t, through all later steps, is
    g_t = ȳ_t C_t* + a_{t+1}* g_{t+1}
(bar: incoming gradient, star: complex conjugate), and the rest follows from b_t = Δ_t x_t B_t and a_t = exp(Δ_t A).

Inside, the D channels are split into G groups of E, time comes first and channels last: (T, B, G, N, E) for a chunk of
T steps. So every step is one contiguous block, and sums over N add long rows instead of short ones.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ssm_kit.ops._autograd import differentiable_once
from ssm_kit.ops._dispatch import full_precision

CHUNK = 32
"""Steps per chunk: states kept are N / CHUNK of the input's size, and the working set stays small enough for caches."""


def scan(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The same as `reference.scan`, with the same arguments; differentiable once."""
    groups = (B.shape[-2], x.shape[-1] // B.shape[-2])
    x, delta = (tensor.unflatten(-1, groups) for tensor in (x, delta))  # (B, L, G, E)
    A, state = (tensor.unflatten(-2, groups).mT.contiguous() for tensor in (A, state))  # (G, N, E), (B, G, N, E)
    y, state = _Scan.apply(x, delta, A, B, C, state)
    return y.flatten(-2), state.mT.flatten(-3, -2)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        a, h = (_chunk_buffer(x, state) for _ in range(2))
        starts = []
        for now in _chunks(x.shape[1]):
            starts.append(state)
            x_c, delta_c, B_c, C_c, y_c = (_time_first(tensor, now) for tensor in (x, delta, B, C, y))
            states = _states(x_c, delta_c, A, B_c, state, a, h)
            y_c.copy_(_real(_contract(C_c, states)))
            state = states[-1].clone()
        ctx.save_for_backward(x, delta, A, B, C, *starts)
        return y, state

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, dy: Tensor, dstate: Tensor) -> tuple[Tensor, ...]:
        x, delta, A, B, C, *starts = ctx.saved_tensors
        dA = torch.zeros_like(A)
        dx, ddelta, dB, dC = (torch.empty_like(tensor) for tensor in (x, delta, B, C))
        buffers = [_chunk_buffer(x, starts[0]) for _ in range(3)]
        with full_precision(x.device):
            for start, now in zip(reversed(starts), reversed(list(_chunks(x.shape[1]))), strict=True):
                inputs = [_time_first(tensor, now) for tensor in (x, delta, B, C, dy)]
                parts, dA_c, dstate = _chunk_backward(inputs, A, start, dstate, buffers)
                dA += dA_c
                for whole, part in zip((dx, ddelta, dB, dC), parts, strict=True):
                    _time_first(whole, now).copy_(part)
        return dx, ddelta, dA, dB, dC, dstate


def _states(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, start: Tensor, a: Tensor, h: Tensor) -> Tensor:
    """Fill the buffer `a` with the decays exp(ΔA) of a chunk and `h` with its states; return `h`, cut to the chunk."""
    a, h = a[: len(x)], h[: len(x)]
    torch.mul(delta[..., None, :], A, out=a).exp_()
    torch.mul((delta * x)[..., None, :], B[..., None], out=h)
    for a_t, h_t in zip(a.unbind(), h.unbind(), strict=True):
        start = h_t.addcmul_(a_t, start)
    return h


def _chunk_backward(
    inputs: list[Tensor], A: Tensor, start: Tensor, dlast: Tensor, buffers: list[Tensor]
) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    """Gradients (dx, ddelta, dB, dC), dA, dstart of one chunk.

    `inputs` are x, delta, B, C and dy of the chunk; `dlast` is what later chunks ask of its last state.
    """
    x, delta, B, C, dy = inputs
    a, h, g = (buffer[: len(x)] for buffer in buffers)
    _states(x, delta, A, B, start, a, h)
    a.conj_physical_()
    h.conj_physical_()
    dC = torch.mul(dy[..., None, :], h, out=g).sum(-1)
    _adjoints(a, dy, C, dlast, g)
    carried = a.mul_(g)
    dstart = carried[0].clone()
    carried[1:].mul_(h[:-1])
    carried[0].mul_(start.conj())  # now the gradient of ΔA; h is free
    dinput = _real(_contract(B.conj(), g))  # of Δx
    dB = torch.mul((delta * x)[..., None, :], g, out=h).sum(-1)
    ddelta = _real(torch.mul(carried, A.conj(), out=g).sum(-2)) + x * dinput
    dA = carried.mul_(delta[..., None, :]).sum((0, 1))
    return (delta * dinput, ddelta, dB, dC), dA, dstart


def _adjoints(a: Tensor, dy: Tensor, C: Tensor, dlast: Tensor, g: Tensor) -> None:
    """Fill g with the gradients of the states: g_t = ȳ_t C_t* + a_{t+1}* g_{t+1}; `a` is already conjugate."""
    torch.mul(dy[..., None, :], C.conj()[..., None], out=g)
    steps, decays = g.unbind(), a.unbind()
    steps[-1].add_(dlast)
    for t in range(len(steps) - 2, -1, -1):
        steps[t].addcmul_(decays[t + 1], steps[t + 1])


def _contract(weights: Tensor, states: Tensor) -> Tensor:
    """Sum over N: weights (T, B, G, N), states (T, B, G, N, E) -> (T, B, G, E)."""
    return (weights[..., None, :] @ states)[..., 0, :]


def _chunks(length: int) -> Iterator[slice]:
    return (slice(start, min(start + CHUNK, length)) for start in range(0, length, CHUNK))


def _time_first(tensor: Tensor, now: slice) -> Tensor:
    return tensor[:, now].transpose(0, 1)


def _chunk_buffer(x: Tensor, state: Tensor) -> Tensor:
    return state.new_empty((min(CHUNK, x.shape[1]), *state.shape))


def _real(tensor: Tensor) -> Tensor:
    return tensor.real if tensor.is_complex() else tensor
