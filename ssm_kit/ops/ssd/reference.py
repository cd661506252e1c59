"""Mamba-2's scan (SSD) as its definition reads: one state update after the other."""

import torch
from torch import Tensor


def scan(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Run `step` along the sequence.

    Args:
        x: (B, L, H, P).
        delta: (B, L, H).
        A: (H,).
        B, C: (B, L, G, N), H a multiple of G.
        state: (B, H, P, N).

    Returns:
        y (B, L, H, P), and the state after the last step.
    """
    outputs = []
    # Unbind once: the gradient of x[:, t] is as long as x, and L of them would make the backward pass quadratic.
    for x_t, delta_t, B_t, C_t in zip(x.unbind(1), delta.unbind(1), B.unbind(1), C.unbind(1), strict=True):
        y_t, state = step(state, x_t, delta_t, A, B_t, C_t)
        outputs.append(y_t)
    return torch.stack(outputs, dim=1), state


def step(state: Tensor, x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """h ← exp(ΔA) h + (Δx) Bᵀ, y = h C, with one decay per head: Mamba-2 (arXiv 2405.21060), §7.

    Args:
        state: h (B, H, P, N).
        x: (B, H, P).
        delta: (B, H).
        A: (H,).
        B, C: (B, G, N).

    Returns:
        y (B, H, P) and the next state.
    """
    per_group = x.shape[1] // B.shape[1]
    B, C = (tensor.repeat_interleave(per_group, dim=1) for tensor in (B, C))  # (B, H, N): neighbours share a group
    decay = torch.exp(delta * A)[..., None, None]  # (B, H, 1, 1)
    write = (delta[..., None] * x)[..., None] * B[..., None, :]  # (B, H, P, N)
    state = decay * state + write
    return (state @ C[..., None])[..., 0], state
