"""How the operators' tests compare: values and every gradient; and the scans written out number by number.

An operator is compared as a function of keyword tensors that returns a tuple of tensors:
    assert_same(lambda **t: selective_scan(**t, backend="torch", return_final_state=True),
                lambda **t: selective_scan(**t, backend="reference", return_final_state=True), tensors, **DOUBLE)
"""

import cmath
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

DOUBLE = {"values": 1e-12, "gradients": 1e-11}
SINGLE = {"values": 1e-5, "gradients": 1e-5}


def lengths(chunk: int) -> tuple[int, ...]:
    """Lengths around a chunk's edges, and primes on both sides: 1, chunk - 1, chunk, chunk + 1, ..."""
    return (1, 2, 7, chunk - 1, chunk, chunk + 1, 2 * chunk, 2 * chunk + 1, 3 * chunk + 5, 101)


def assert_close(actual: Tensor, expected: Tensor, tolerance: float, name: str = "result") -> None:
    """Same shape, finite, and no entry off by more than tolerance times the largest expected entry."""
    assert actual.shape == expected.shape, f"{name}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    assert actual.isfinite().all(), f"{name} is not finite"
    error, size = (float(part.abs().max()) for part in (actual.detach() - expected.detach(), expected.detach()))
    assert error <= tolerance * max(size, torch.finfo(actual.dtype).tiny), f"{name}: off by {error:.2e} of {size:.2e}"


def evaluate(function: Callable[..., Any], tensors: dict[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """The outputs of function(**tensors), named 0, 1, ..., and the gradient of each tensor through all of them.

    The loss weighs all outputs with one fixed noise, so that the gradients of two functions can be compared.
    """
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    outputs = function(**leaves)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out) for out in outputs]
    gradients = torch.autograd.grad(outputs, list(leaves.values()), weights)
    named = {f"output {index}": output.detach() for index, output in enumerate(outputs)}
    return named | {f"gradient of {name}": part for name, part in zip(leaves, gradients, strict=True)}


def assert_same(
    actual: Callable[..., Any],
    expected: Callable[..., Any],
    tensors: dict[str, Tensor],
    *,
    values: float,
    gradients: float,
) -> None:
    """Two functions of the same tensors agree: in their outputs, and in the gradient of every tensor."""
    found, wanted = evaluate(actual, tensors), evaluate(expected, tensors)
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert_close(found[name], wanted[name], values if name.startswith("output") else gradients, name)


def strided(tensor: Tensor) -> Tensor:
    """The same values in memory that is neither contiguous nor in order: axes reversed, every other entry of a row."""
    backwards = list(reversed(range(tensor.ndim)))
    memory = tensor.new_zeros([2 * tensor.shape[axis] for axis in backwards])
    view = memory[tuple(slice(1, None, 2) for _ in backwards)].permute(backwards)
    view.copy_(tensor)
    return view


def first_order_entries(a: Tensor, b: Tensor, state: Tensor) -> np.ndarray:
    """h_t = a_t h_{t-1} + b_t for one channel, number by number: a, b (L,), state () -> (L,)."""
    h, states = state.item(), []
    for a_t, b_t in zip(a.tolist(), b.tolist(), strict=True):
        h = a_t * h + b_t
        states.append(h)
    return np.array(states)


def selective_scan_entries(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, delta_bias: Tensor, state: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """The selective scan with softplus, skip and gate, number by number, for B, C with groups: (y, state)."""
    batch, length, channels = x.shape
    h = np.array(state.tolist(), dtype=complex)
    y = np.zeros((batch, length, channels))
    for b, t, d in np.ndindex(batch, length, channels):
        group = d // (channels // B.shape[2])
        step = math.log1p(math.exp(delta[b, t, d].item() + delta_bias[d].item()))
        total = 0.0
        for n in range(A.shape[1]):
            write = step * x[b, t, d].item() * B[b, t, group, n].item()
            h[b, d, n] = cmath.exp(step * A[d, n].item()) * h[b, d, n] + write
            total += (C[b, t, group, n].item() * h[b, d, n]).real
        gate = z[b, t, d].item() / (1 + math.exp(-z[b, t, d].item()))
        y[b, t, d] = (total + D[d].item() * x[b, t, d].item()) * gate
    return y, h
