"""Mamba-2's scan (SSD) in chunks, by matrix products, on any device: arXiv 2405.21060, §6.

Time is cut into chunks of Q steps. Then
  1. inside a chunk, y is masked linear attention: y_i = Σ_{j ≤ i} exp(S_ij) (C_i · B_j) u_j, with u = Δx;
  2. each chunk alone would end in the state Σ_j exp(S_{last, j}) u_j B_jᵀ;
  3. a recurrence over chunks adds what each inherits, giving the state at every chunk's start;
  4. that state adds exp(since_i) C_i · h to y_i.
S_ij = Σ_{j < s ≤ i} Δ_s A is a sum over the steps between j and i. It is added up as such, never as a difference of two
running totals: at large Δ the totals are in the thousands, and their difference keeps few digits of a small S_ij.

Chunks are worked off in blocks of M. A block's Q × Q matrices fit the cache, and are all that is ever in memory beside
inputs and outputs: the forward pass keeps the state at each block's start, and the backward pass, block by block from
the last, computes the rest again. A length that is no multiple of Q leaves one shorter chunk, never padding.

Shapes in here: the H heads are G groups of R. A block lies in time as x (B, M, Q, G, R, P), Δ (B, M, Q, G, R), B and
C (B, M, G, Q, N). Products per head want (B, M, G, R, Q, P); products with B and C, which the heads of a group share,
want (B, M, G, Q, R·P). A matrix between steps is stored as [j, i], source first. `dy` is the gradient of y.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ssm_kit.ops._autograd import differentiable_once
from ssm_kit.ops._dispatch import full_precision

CPU_BLOCK, GPU_BLOCK = 2**18, 2**26
"""Elements in the Q × Q matrices of one block: what caches hold, or enough to fill a GPU."""


def scan(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor, chunk_size: int
) -> tuple[Tensor, Tensor]:
    """The same as `reference.scan`, with the same arguments and the chunk length Q; differentiable once."""
    groups = (B.shape[2], -1)
    x, delta, A = x.unflatten(2, groups), delta.unflatten(2, groups), A.unflatten(0, groups)
    y, state = _Scan.apply(x, delta, A, B, C, state.unflatten(1, groups), chunk_size)
    return y.flatten(2, 3), state.flatten(1, 2)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor, chunk_size: int
    ) -> tuple[Tensor, Tensor]:
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        ctx.blocks = list(_blocks(x, chunk_size))
        starts = []
        for cut in ctx.blocks:
            starts.append(state)
            y_block, state = _Block(cut(x), cut(delta), A, cut(B), cut(C)).forward(state)
            cut(y).copy_(y_block)
        ctx.save_for_backward(x, delta, A, B, C, *starts)
        return y, state

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, dy: Tensor, dstate: Tensor) -> tuple[Tensor | None, ...]:
        x, delta, A, B, C, *starts = ctx.saved_tensors
        blocks = list(zip(ctx.blocks, starts, strict=True))
        dA = torch.zeros_like(A)
        gradients = [torch.empty_like(tensor) for tensor in (x, delta, B, C)]
        with full_precision(x.device):
            for cut, start in reversed(blocks):
                block = _Block(cut(x), cut(delta), A, cut(B), cut(C))
                *parts, dA_block, dstate = block.backward(cut(dy), start, dstate)
                dA += dA_block
                for whole, part in zip(gradients, parts, strict=True):
                    cut(whole).copy_(part)
        dx, ddelta, dB, dC = gradients
        return dx, ddelta, dA, dB, dC, dstate, None


class _Block:
    """M chunks of Q steps: what the forward and the backward pass both need, and the steps of each."""

    def __init__(self, x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> None:
        self.x, self.delta, self.A = x, delta, A
        self.u = delta[..., None] * x  # (B, M, Q, G, R, P)
        self.B, self.C = B.transpose(2, 3), C.transpose(2, 3)  # (B, M, G, Q, N)
        log_decay = (delta * A).movedim(2, -1)  # (B, M, G, R, Q)
        self.decay = _exp(_segment_sums(log_decay))  # (B, M, G, R, Q, Q): from j to i; 1 where i < j
        self.since = self.decay[..., 0, :] * _exp(log_decay[..., :1])  # (B, M, G, R, Q): from before the chunk to i
        self.until = self.decay[..., -1].movedim(-1, 2)[..., None]  # (B, M, Q, G, R, 1): from j to the chunk's end
        self.total = self.since[..., -1, None, None]  # (B, M, G, R, 1, 1)
        self.scores = (self.B @ self.C.mT).triu_()[:, :, :, None]  # (B, M, G, 1, Q, Q): B_j · C_i; 0 where i < j
        self.heads = x.shape[4:]  # (R, P)

    def forward(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return y (B, M, Q, G, R, P) and the state (B, G, R, P, N) after the block."""
        starts, state = self._states(state)
        y = (self.decay * self.scores).mT @ _per_head(self.u)
        y.addcmul_(self.since[..., None], self._recalled(starts))
        return _in_time(y), state

    def backward(self, dy: Tensor, start: Tensor, dlast: Tensor) -> tuple[Tensor, ...]:
        """Return the gradients of x, delta, B, C, A and the start; `dlast` is that of the state after the block."""
        starts, _ = self._states(start)
        du, dscores, dsums = self._inside_backward(_per_head(dy).contiguous())
        dC, dstarts, dsince = self._recalled_backward(dy, starts)
        dwritten, dtotal, dstart = self._states_backward(starts, dstarts, dlast)
        dB, du_written, duntil = self._written_backward(dwritten)
        du = _in_time(du) + du_written
        dB += dscores @ self.C
        dC += dscores.mT @ self.B
        dlog_decay = _log_decay_gradient(dsums, dsince, duntil, dtotal)  # (B, M, Q, G, R)
        ddelta = (self.x * du).sum(-1) + self.A * dlog_decay
        dA = (self.delta * dlog_decay).sum((0, 1, 2))
        return self.delta[..., None] * du, ddelta, dB.transpose(2, 3), dC.transpose(2, 3), dA, dstart

    def _states(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Steps 2 and 3: the states at the chunks' starts, (B, M, G, R, P, N), and the state after the block."""
        written = (_shared(self.u * self.until).mT @ self.B).unflatten(3, self.heads)
        starts = []
        for total, write in zip(self.total.unbind(1), written.unbind(1), strict=True):
            starts.append(state)
            state = torch.addcmul(write, total, state)
        return torch.stack(starts, dim=1), state

    def _recalled(self, starts: Tensor) -> Tensor:
        """Step 4 before decay: what C reads from the states at the chunks' starts, (B, M, G, R, Q, P)."""
        return (self.C @ starts.flatten(3, 4).mT).unflatten(-1, self.heads).transpose(3, 4)

    def _inside_backward(self, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Step 1, dy per head: gradients of u per head, of the scores (B, M, G, Q, Q), of the segment sums."""
        du = (self.decay * self.scores) @ dy
        dmix = (_per_head(self.u) @ dy.mT).mul_(self.decay)
        dscores = dmix.sum(3).triu_()
        return du, dscores, dmix.mul_(self.scores)

    def _recalled_backward(self, dy: Tensor, starts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Step 4, dy in time: gradients of C, of the starts, of the logarithm of `since`."""
        drecalled = dy * self.since.movedim(-1, 2)[..., None]
        dsince = (_per_head(drecalled) * self._recalled(starts)).sum(-1)
        drecalled = _shared(drecalled)
        return drecalled @ starts.flatten(3, 4), (drecalled.mT @ self.C).unflatten(3, self.heads), dsince

    def _states_backward(self, starts: Tensor, dstarts: Tensor, dstate: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Step 3, from the last chunk: gradients of what the chunks wrote, of log `total`, of the first start."""
        dwritten, dtotal = [], []
        for m in reversed(range(starts.shape[1])):
            dwritten.append(dstate)
            dcarried = self.total[:, m] * dstate
            dtotal.append((dcarried * starts[:, m]).sum((-2, -1)))
            dstate = dcarried + dstarts[:, m]
        return torch.stack(dwritten[::-1], dim=1), torch.stack(dtotal[::-1], dim=1), dstate

    def _written_backward(self, dwritten: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Step 2: gradients of B, of u in time, of the logarithm of `until`."""
        dwritten = dwritten.flatten(3, 4)
        dB = _shared(self.u * self.until) @ dwritten
        du = (self.B @ dwritten.mT).unflatten(-1, self.heads).transpose(2, 3) * self.until
        return dB, du, (self.u * du).sum(-1).movedim(2, -1)


def _segment_sums(log_decay: Tensor) -> Tensor:
    """(..., Q) -> (..., Q, Q): entry [j, i] is the sum over j < s ≤ i, and 0 where there is nothing between."""
    size = log_decay.shape[-1]
    later = log_decay.new_ones(size, size).triu_(1)  # [j, s]: j < s
    return (log_decay[..., None, :] * later).cumsum(-1)


def _log_decay_gradient(dsums: Tensor, dsince: Tensor, duntil: Tensor, dtotal: Tensor) -> Tensor:
    """The gradient of a step's log decay: the sum over all j < s ≤ i that have the step s between them.

    What passes from before the chunk enters with the first step and continues like its row; what passes to the
    chunk's end is the last column. Only sums, no differences, as in `_segment_sums`.
    """
    dsums[..., 0, :] += dsince
    dsums[..., -1] += duntil
    dsums[..., 0, -1] += dtotal
    first = dsince.sum(-1, keepdim=True) + dtotal[..., None]
    crossing = dsums.cumsum(-2).triu_(1).sum(-1)  # entry s - 1 belongs to step s
    return torch.cat([first, crossing[..., :-1]], dim=-1).movedim(-1, 2)


def _exp(log_decay: Tensor) -> Tensor:
    """exp, with 0 for what would be a subnormal number: those take up to thirty times as long on a CPU."""
    smallest = 4 * torch.finfo(log_decay.dtype).tiny
    decay = log_decay.clamp(min=math.log(smallest / 2)).exp_()
    return F.threshold(decay, smallest, 0.0, inplace=True)  # a NaN stays one


class _Cut(NamedTuple):
    """Some steps of a sequence as chunks."""

    steps: slice
    chunk: int

    def __call__(self, tensor: Tensor) -> Tensor:
        """(B, L, ...) -> a view of (B, M, Q, ...)."""
        return tensor[:, self.steps].unflatten(1, (-1, self.chunk))


def _blocks(x: Tensor, chunk: int) -> Iterator[_Cut]:
    """The blocks of a sequence; a rest shorter than a chunk is a block of its own."""
    batch, length, groups, per_group, _ = x.shape
    budget = CPU_BLOCK if x.device.type == "cpu" else GPU_BLOCK
    block = chunk * max(1, budget // (batch * groups * per_group * chunk * chunk))
    whole = length - length % chunk
    for start in range(0, whole, block):
        yield _Cut(slice(start, min(start + block, whole)), chunk)
    if whole < length:
        yield _Cut(slice(whole, length), length - whole)


def _per_head(tensor: Tensor) -> Tensor:
    """(B, M, Q, G, R, P) -> (B, M, G, R, Q, P)."""
    return tensor.permute(0, 1, 3, 4, 2, 5)


def _in_time(tensor: Tensor) -> Tensor:
    """(B, M, G, R, Q, P) -> (B, M, Q, G, R, P)."""
    return tensor.permute(0, 1, 4, 2, 3, 5)


def _shared(tensor: Tensor) -> Tensor:
    """(B, M, Q, G, R, P) -> (B, M, G, Q, R·P): one matrix for all heads of a group."""
    return tensor.transpose(2, 3).flatten(-2)
