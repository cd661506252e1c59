"""The selective scan as its definition reads: one state update after the other."""

import torch
from torch import Tensor


def scan(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Run `step` along the sequence.

    Args:
        x, delta: (B, L, D) real.
        A: (D, N), real or complex.
        B, C: (B, L, G, N), D a multiple of G.
        state: (B, D, N), in the dtype of A, B and C.

    Returns:
        y (B, L, D) real, and the state after the last step.
    """
    outputs = []
    # Unbind once: the gradient of x[:, t] is as long as x, and L of them would make the backward pass quadratic.
    for x_t, delta_t, B_t, C_t in zip(x.unbind(1), delta.unbind(1), B.unbind(1), C.unbind(1), strict=True):
        y_t, state = step(state, x_t, delta_t, A, B_t, C_t)
        outputs.append(y_t)
    return torch.stack(outputs, dim=1), state


def step(state: Tensor, x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """h ← exp(ΔA) h + ΔB x, y = Re(C h): Mamba (arXiv 2312.00752), eq. 2, with B̄ = ΔB as its code has it.

    Args:
        state: h (B, D, N).
        x, delta: (B, D).
        A: (D, N).
        B, C: (B, G, N).

    Returns:
        y (B, D) and the next state.
    """
    per_group = x.shape[-1] // B.shape[-2]
    B, C = (tensor.repeat_interleave(per_group, dim=-2) for tensor in (B, C))  # (B, D, N): neighbours share a group
    A_bar = torch.exp(delta[..., None] * A)
    state = A_bar * state + (delta * x)[..., None] * B
    y = (C * state).sum(-1)
    return y.real if y.is_complex() else y, state
