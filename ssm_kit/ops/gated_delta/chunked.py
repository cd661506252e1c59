"""The gated delta rule in chunks: matrix products inside, one state handed from chunk to chunk (the WY form).

Inside a chunk with memory S at its start, γ_i = α_1 ⋯ α_i and Γ_ij = α_{j+1} ⋯ α_i (zero for j > i), the values that
are really written, u_i = β_i (v_i − what the faded memory holds under k_i), solve a triangular system:

    (I + A) U = diag(β) (V − diag(γ) K S)        A = strictly lower part of diag(β) (Γ ∘ K Kᵀ)
    O = scale (diag(γ) Q S + (Γ ∘ Q Kᵀ) U)       S⁺ = γ_C S + (diag(Γ_C·) K)ᵀ U

(Gated DeltaNet, arXiv 2412.06464, sec. 3.3; the mask of the output is Γ, not the plain triangle that is printed there.)
Plain linear attention has no correction: U = V. Every decay is the exponential of a sum of g, never of a difference of
sums and never a quotient, so that a memory that is wiped out (α = 0, g = −∞) costs no digits.

Chunks are computed in spans of SPAN steps: what is inside a span is parallel and is computed again in the backward
pass, which keeps the inputs and one state per span only.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ssm_kit.ops._autograd import differentiable_once
from ssm_kit.ops._dispatch import full_precision

CHUNK = 32
SPAN = 8 * CHUNK


class Span(NamedTuple):
    """The inputs of a span, chunk by chunk: N chunks of C steps for each of M = B · HV memories."""

    q: Tensor  # (N, M, C, K)
    k: Tensor  # (N, M, C, K)
    v: Tensor  # (N, M, C, V)
    g: Tensor  # (N, M, C)
    beta: Tensor | None  # (N, M, C)


class Correction(NamedTuple):
    """What turns the values that are asked for into those that are written."""

    beta: Tensor  # (N, M, C, 1)
    overlap: Tensor  # (N, M, C, C)  K Kᵀ
    inverse: Tensor  # (N, M, C, C)  (I + A)⁻¹


class Inside(NamedTuple):
    """What the chunks of a span need no memory for."""

    decay: Tensor  # (N, M, C, C)  Γ
    start: Tensor  # (N, M, C)  γ
    correction: Correction | None


class Memory(NamedTuple):
    """What a span writes, and the memory between its chunks."""

    written: Tensor  # (N, M, C, V)  U
    errors: Tensor  # (N, M, C, V)  R = V − diag(γ) K S; V where nothing is corrected
    states: Tensor  # (N, M, K, V)  S before each chunk
    last: Tensor  # (M, K, V)  S after the last chunk


def scan(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor | None, state: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Compute what `reference.scan` defines; differentiable once."""
    tensors: tuple[Tensor | None, ...] = (q, k, v, g, beta, state)
    if k.shape[-1] == 1:
        # All keys point one way: what each correction erases the next erases again, and a chunk finds what is left of
        # the first memory as a difference of larger numbers. Doubles keep its digits, and cost little at this width.
        tensors = tuple(tensor if tensor is None else tensor.double() for tensor in tensors)
    outputs, state = _GatedDelta.apply(*tensors, scale)
    return outputs.to(v.dtype), state.to(v.dtype)


class _GatedDelta(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, g, beta, state, scale):
        outputs, states = torch.empty_like(v), [state.flatten(0, 1)]
        for first in range(0, v.shape[1], SPAN):
            o, state = forward_span(span_from(first, q, k, v, g, beta), states[-1], scale)
            put(o, outputs, first)
            states.append(state)
        ctx.save_for_backward(q, k, v, g, beta, *states[:-1])
        ctx.scale = scale
        return outputs, states[-1].unflatten(0, (v.shape[0], -1))

    @staticmethod
    @differentiable_once
    def backward(ctx, d_outputs, d_state):
        inputs, states = ctx.saved_tensors[:5], ctx.saved_tensors[5:]
        batch, d_state = d_state.shape[0], d_state.flatten(0, 1)
        gradients = [None if x is None else torch.empty_like(x) for x in inputs]
        with full_precision(d_outputs.device):
            for index in reversed(range(len(states))):
                first = index * SPAN
                d_o = ctx.scale * chunks(d_outputs[:, first : first + SPAN])
                parts, d_state = backward_span(span_from(first, *inputs), states[index], d_o, d_state)
                for part, gradient in zip(parts, gradients, strict=True):
                    put(part, gradient, first)
        return *gradients, d_state.unflatten(0, (batch, -1)), None


def forward_span(span: Span, state: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Outputs (N, M, C, V) of a span and the state (M, K, V) after it."""
    inside = look_inside(span)
    memory = run_memory(span, inside, state)
    scores = (span.q @ span.k.mT) * inside.decay
    return scale * (scores @ memory.written + (inside.start[..., None] * span.q) @ memory.states), memory.last


def look_inside(span: Span) -> Inside:
    """Decays, overlaps of the keys and the solution of the triangular system, for all chunks at once."""
    decay = torch.exp(pair_sums(span.g)).tril()
    start = torch.exp(span.g.cumsum(-1))
    if span.beta is None:
        return Inside(decay, start, None)
    beta, overlap = span.beta[..., None], span.k @ span.k.mT
    return Inside(decay, start, Correction(beta, overlap, unit_inverse((beta * decay * overlap).tril(-1))))


def run_memory(span: Span, inside: Inside, state: Tensor) -> Memory:
    """Pass the memory from chunk to chunk."""
    held = inside.start[..., None] * span.k
    kept = (inside.decay[..., -1, :, None] * span.k).mT  # what lasts until the end of the chunk
    written, errors, states = [], [], []
    for n, v in enumerate(span.v):
        states.append(state)
        if inside.correction is not None:
            beta, _, inverse = inside.correction
            errors.append(torch.baddbmm(v, held[n], state, alpha=-1))
            v = inverse[n] @ (beta[n] * errors[n])
        written.append(v)
        state = torch.baddbmm(inside.start[n, :, -1:, None] * state, kept[n], v)
    return Memory(torch.stack(written), torch.stack(errors) if errors else span.v, torch.stack(states), state)


def backward_span(
    span: Span, state: Tensor, d_o: Tensor, d_state: Tensor
) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None], Tensor]:
    """Gradients of the five inputs of a span and of the state before it; `d_o` comes times scale."""
    inside = look_inside(span)
    memory = run_memory(span, inside, state)
    overlap = span.q @ span.k.mT
    d_v, d_states, d_state = memory_backward(span, inside, (overlap * inside.decay).mT @ d_o, d_o, d_state)
    # O = diag(γ) Q S + (Γ ∘ Q Kᵀ) U and S⁺ = γ_C S + (diag(Γ_C·) K)ᵀ U
    d_scores, d_read, d_kept = d_o @ memory.written.mT, d_o @ memory.states.mT, memory.written @ d_states.mT
    d_decay, d_overlap = d_scores * overlap, d_scores * inside.decay
    d_decay[..., -1, :] += (span.k * d_kept).sum(-1)
    d_start = (span.q * d_read).sum(-1)
    d_start[..., -1] += (d_states * memory.states).sum((-2, -1))
    d_q = d_overlap @ span.k + inside.start[..., None] * d_read
    d_k = d_overlap.mT @ span.q + inside.decay[..., -1, :, None] * d_kept
    d_beta = None
    if inside.correction is not None:
        d_beta = correction_backward(span, inside, memory, d_v, (d_k, d_decay, d_start))
        d_v = inside.correction.beta * d_v
    return (d_q, d_k, d_v, decay_backward(inside, d_decay, d_start), d_beta), d_state


def memory_backward(
    span: Span, inside: Inside, d_written: Tensor, d_o: Tensor, d_state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the memory's gradient backwards through the chunks.

    Args:
        d_written: what reaches U through the outputs of its own chunk.
        d_o: gradient of the outputs, times scale.
        d_state: gradient of the state after the span.

    Returns:
        Gradients of diag(β) R (of V without a correction), of the state after each chunk, of the state before all.
    """
    read = (inside.start[..., None] * span.q).mT
    held = (inside.start[..., None] * span.k).mT
    kept = inside.decay[..., -1, :, None] * span.k
    asked, states = [], []
    for n in reversed(range(len(d_o))):
        states.append(d_state)
        d_v = torch.baddbmm(d_written[n], kept[n], d_state)
        d_state = torch.baddbmm(inside.start[n, :, -1:, None] * d_state, read[n], d_o[n])
        if inside.correction is not None:
            beta, _, inverse = inside.correction
            d_v = inverse[n].mT @ d_v
            d_state = torch.baddbmm(d_state, held[n], beta[n] * d_v, alpha=-1)
        asked.append(d_v)
    return torch.stack(asked[::-1]), torch.stack(states[::-1]), d_state


def correction_backward(
    span: Span, inside: Inside, memory: Memory, d_asked: Tensor, sums: tuple[Tensor, Tensor, Tensor]
) -> Tensor:
    """Gradient of β, from that of diag(β) R; what the correction takes from those of k, Γ, γ goes out of `sums`."""
    assert inside.correction is not None
    beta, overlap, _ = inside.correction
    d_k, d_decay, d_start = sums
    d_system = (d_asked @ memory.written.mT).tril_(-1)  # − that of A, in (I + A) U = diag(β) R
    d_beta = (d_asked * memory.errors).sum(-1) - (d_system * inside.decay * overlap).sum(-1)
    d_held = (beta * d_asked) @ memory.states.mT  # − that of diag(γ) K, in R = V − diag(γ) K S
    d_system *= beta
    d_overlap = d_system * inside.decay
    d_k -= (d_overlap + d_overlap.mT) @ span.k
    d_k -= inside.start[..., None] * d_held
    d_decay -= d_system * overlap
    d_start -= (span.k * d_held).sum(-1)
    return d_beta


def pair_sums(g: Tensor) -> Tensor:
    """Sums of g over j < m <= i, in (..., i, j), zero for j >= i; by addition only, so that −∞ stays −∞."""
    size = g.shape[-1]
    later = g[..., None, :].expand(*g.shape, size).triu(1)  # row j keeps the steps after j
    return later.cumsum(-1).mT


def decay_backward(inside: Inside, d_decay: Tensor, d_start: Tensor) -> Tensor:
    """Gradient of g: step m is in every pair j < m <= i, and in every γ_i with m <= i."""
    pairs = d_decay * inside.decay
    from_here_on = torch.ones_like(pairs[0, 0]).triu()
    crossing = (from_here_on @ pairs).tril(-1).sum(-1)
    return crossing + (d_start * inside.start) @ from_here_on.mT


def unit_inverse(lower: Tensor) -> Tensor:
    """(I + A)⁻¹ for a strictly lower triangular A (..., C, C), by halves."""
    size = lower.shape[-1]
    if size <= 16:
        eye = torch.eye(size, dtype=lower.dtype, device=lower.device)
        return torch.linalg.solve_triangular(lower, eye.expand_as(lower), upper=False, unitriangular=True)
    half = size // 2
    inverse = torch.zeros_like(lower)
    inverse[..., :half, :half] = first = unit_inverse(lower[..., :half, :half])
    inverse[..., half:, half:] = last = unit_inverse(lower[..., half:, half:])
    inverse[..., half:, :half] = -last @ lower[..., half:, :half] @ first
    return inverse


def span_from(first: int, q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor | None) -> Span:
    """Cut the span that begins at a step out of tensors (B, L, HV, ...)."""
    here = slice(first, first + SPAN)
    q, k, v, g = (chunks(x[:, here]) for x in (q, k, v, g))
    return Span(q, k, v, g, None if beta is None else chunks(beta[:, here]))


def chunks(x: Tensor) -> Tensor:
    """(B, l, HV, ...) as (N, B HV, C, ...), filled up with zeros: no decay, nothing written."""
    batch, length, heads, *rest = x.shape
    size = min(CHUNK, length)
    missing = -length % size
    if missing:
        x = torch.cat([x, x.new_zeros(batch, missing, heads, *rest)], dim=1)
    x = x.unflatten(1, (-1, size)).permute(1, 0, 3, 2, *range(4, x.ndim + 1))
    return x.reshape(-1, batch * heads, size, *rest)


def put(part: Tensor | None, whole: Tensor | None, first: int) -> None:
    """Write chunks (N, B HV, C, ...) into (B, L, HV, ...) from a step on, without what filled the last one up."""
    if part is not None and whole is not None:
        place = whole[:, first : first + SPAN]
        steps = part.unflatten(1, (place.shape[0], -1)).permute(1, 0, 3, 2, *range(4, part.ndim + 1))
        place.copy_(steps.flatten(1, 2)[:, : place.shape[1]])
