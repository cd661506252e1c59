"""The first-order scan as its definition reads: one step after the other."""

import torch
from torch import Tensor


def scan(a: Tensor, b: Tensor, state: Tensor) -> Tensor:
    """All states h_t = a_t h_{t-1} + b_t of a sequence: a, b (B, L, D), state h_0 (B, D) -> (B, L, D)."""
    states = []
    # Unbind once: the gradient of a[:, t] is as long as a, and L of them would make the backward pass quadratic.
    for a_t, b_t in zip(a.unbind(1), b.unbind(1), strict=True):
        state = step(state, a_t, b_t)
        states.append(state)
    return torch.stack(states, dim=1)


def step(state: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """h ← a h + b, elementwise."""
    return a * state + b
