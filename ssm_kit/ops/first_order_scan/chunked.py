"""The first-order scan in chunks that run side by side, on any device.

A step h ↦ a h + b is one small operation on B · D numbers, and L of them in a row cost L times the overhead of starting
one. So the sequence is cut into K chunks of T steps, and every step is taken in all chunks at once, (K, B, D):
    1. scan each chunk from a zero state, for its last state, and multiply its decays;
    2. pass the state from chunk to chunk: start_{k+1} = (∏ a) start_k + last_k;
    3. scan each chunk again, now from its true start.
That is T + K + T steps instead of K T. No logarithms, no quotients: a decay may underflow to 0.

The gradient is a scan too, from the end: with ḡ_t the incoming gradient and * the complex conjugate,
g_t = ḡ_t + a_{t+1}* g_{t+1}, and then b̄_t = g_t, ā_t = g_t h_{t-1}*, h̄_0 = a_1* g_1.
"""

import math
from typing import Any

import torch
from torch import Tensor

from ssm_kit.ops._autograd import differentiable_once

WIDTH = 1 << 14
"""Numbers per step beyond which the overhead of starting an operation no longer matters."""


def scan(a: Tensor, b: Tensor, state: Tensor) -> Tensor:
    """The same as `reference.scan`, with the same arguments in one dtype; differentiable once."""
    return _Scan.apply(a, b, state)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, state: Tensor) -> Tensor:
        h = _states(a.transpose(0, 1), b.transpose(0, 1), state).transpose(0, 1)
        ctx.save_for_backward(a, h, state)
        return h

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, dh: Tensor) -> tuple[Tensor, ...]:
        a, h, state = ctx.saved_tensors
        a, h, dh = (tensor.transpose(0, 1) for tensor in (a.conj(), h, dh))  # (L, B, D)
        # Backwards in time, the decay that g_{t+1} meets on its way to g_t is a_{t+1}; g_L meets none.
        decays = torch.cat([torch.ones_like(a[:1]), a[1:].flip(0)])
        g = _states(decays, dh.flip(0), torch.zeros_like(state)).flip(0)
        before = torch.cat([state[None], h[:-1]])
        return (g * before.conj()).transpose(0, 1), g.transpose(0, 1), a[0] * g[0]


def _states(a: Tensor, b: Tensor, start: Tensor) -> Tensor:
    """All states of a sequence, time first: a, b (L, B, D), start (B, D) -> (L, B, D)."""
    count = min(max(1, WIDTH // start.numel()), math.isqrt(len(a)))
    if count > 1:
        a_chunks, b_chunks = _cut(a, count, 1), _cut(b, count, 0)
        starts, decay = _chunk_starts(a_chunks, b_chunks, start)
        # Growing states may be finite where their product of decays, or it times 0, is not: then take it step by step.
        if bool(decay.isfinite().all()):
            return _run(a_chunks, b_chunks, starts).flatten(0, 1)[: len(a)]
    return _run(a[None], b[None], start[None])[0]


def _chunk_starts(a: Tensor, b: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """The state (K, B, D) in which each chunk begins, and the decay (K - 1, B, D) over each; a, b (K, T, B, D)."""
    (decay, *decays), (last, *inputs) = a[:-1].unbind(1), b[:-1].unbind(1)
    for a_t, b_t in zip(decays, inputs, strict=True):
        last, decay = torch.addcmul(b_t, a_t, last), a_t * decay
    starts = [start]
    for decay_k, last_k in zip(decay, last, strict=True):
        starts.append(torch.addcmul(last_k, decay_k, starts[-1]))
    return torch.stack(starts), decay


def _run(a: Tensor, b: Tensor, state: Tensor) -> Tensor:
    """Scan K chunks side by side: a, b (K, T, B, D), state (K, B, D) -> (K, T, B, D)."""
    h = torch.empty_like(b, memory_format=torch.contiguous_format)
    for a_t, b_t, h_t in zip(a.unbind(1), b.unbind(1), h.unbind(1), strict=True):
        state = torch.addcmul(b_t, a_t, state, out=h_t)
    return h


def _cut(tensor: Tensor, count: int, neutral: float) -> Tensor:
    """(L, B, D) -> (K, T, B, D); the steps missing at the end change nothing: a = 1, b = 0."""
    steps = -(-len(tensor) // count)
    missing = tensor.new_full((count * steps - len(tensor), *tensor.shape[1:]), neutral)
    return torch.cat([tensor, missing]).unflatten(0, (count, steps))
