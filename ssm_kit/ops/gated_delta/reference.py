"""The gated delta rule, step by step: the definition that the chunked form is held to."""

import torch
from torch import Tensor


def scan(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor | None, state: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Decay, correct, read, at every step in turn (Gated DeltaNet, arXiv 2412.06464, eq. 10).

    Args:
        q: queries (B, L, HV, K).
        k: keys (B, L, HV, K).
        v: values (B, L, HV, V).
        g: logarithm of the decay, (B, L, HV).
        beta: writing strength, (B, L, HV); None for plain linear attention, which adds without correcting.
        state: the memory before the first step, (B, HV, K, V).
        scale: factor of the outputs.

    Returns:
        Outputs (B, L, HV, V) and the memory after the last step.
    """
    strengths = [None] * q.shape[1] if beta is None else beta.unbind(1)
    outputs = []
    for q_t, k_t, v_t, g_t, beta_t in zip(*(x.unbind(1) for x in (q, k, v, g)), strengths, strict=True):
        o_t, state = step(q_t, k_t, v_t, g_t, beta_t, state, scale)
        outputs.append(o_t)
    return torch.stack(outputs, dim=1), state


def step(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor | None, state: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """One step: arguments as in `scan` without the time axis; returns the output (B, HV, V) and the new memory."""
    state = g.exp()[..., None, None] * state  # fade first ...
    if beta is not None:
        v = beta[..., None] * (v - read(state, k))  # ... so the correction sees what the faded memory still holds
    state = state + k[..., :, None] * v[..., None, :]
    return scale * read(state, q), state


def read(state: Tensor, key: Tensor) -> Tensor:
    """What the memory (..., K, V) holds under a key (..., K): the values (..., V), Sᵀ k."""
    return (state * key[..., None]).sum(-2)
