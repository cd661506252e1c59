"""`first_order_scan` and `selective_scan` beside the usual ways to write them."""

from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.case import Case, Contender, Tensors
from ssm_kit.ops import first_order_scan, selective_scan

LENGTHS = (512, 2048)
GROWTH = (1024, 2048, 4096, 8192, 16384, 32768, 65536)


def scan_tensors(length: int, batch: int, channels: int) -> Tensors:
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(batch, length, channels, generator=generator)
    return {"a": a, "b": torch.randn(a.shape, generator=generator)}


def selective_tensors(length: int, batch: int, channels: int, states: int = 16) -> Tensors:
    """Step sizes and A as Mamba starts with: Δ from 0.001 to 0.1, A = -(1 .. N)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, length, channels, generator=generator)
    B, C = torch.randn(2, batch, length, states, generator=generator)
    delta = 10 ** (-3 + 2 * torch.rand(x.shape, generator=generator))
    A = -torch.arange(1.0, states + 1).repeat(channels, 1)
    return {"x": x, "delta": delta, "A": A, "B": B, "C": C}


def discretized(x: Tensor, delta: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """Ā and B̄x of all steps at once, (B, L, D, N): what makes the usual ways large."""
    return torch.exp(delta[..., None] * A), (delta * x)[..., None] * B[:, :, None]


def selective_indexed(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The loop of most teaching code: it indexes time, so every step's gradient is as long as the sequence."""
    A_bar, input_ = discretized(x, delta, A, B)
    h, outputs = torch.zeros_like(A_bar[:, 0]), []
    for t in range(x.shape[1]):
        h = A_bar[:, t] * h + input_[:, t]
        outputs.append((h * C[:, t, None]).sum(-1))
    return torch.stack(outputs, 1)


def selective_mambapy(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    from mambapy.pscan import pscan

    return (pscan(*discretized(x, delta, A, B)) @ C[..., None])[..., 0]


def indexed(a: Tensor, b: Tensor) -> Tensor:
    h, states = torch.zeros_like(a[:, 0]), []
    for t in range(a.shape[1]):
        h = a[:, t] * h + b[:, t]
        states.append(h)
    return torch.stack(states, 1)


def mambapy(a: Tensor, b: Tensor) -> Tensor:
    from mambapy.pscan import pscan

    return pscan(a[..., None], b[..., None])[..., 0]


SELECTIVE = Contender("ssm_kit", selective_scan)
FIRST_ORDER = Contender("ssm_kit", first_order_scan)

CASES = [
    Case(
        "selective_scan",
        "B4 D256 N16",
        lambda length: selective_tensors(length, 4, 256),
        (
            SELECTIVE,
            Contender("ssm_kit reference", lambda **t: selective_scan(**t, backend="reference"), repeats=3),
            Contender("mambapy pscan", selective_mambapy, repeats=5, needs="mambapy"),
            Contender("indexed loop", selective_indexed, repeats=1, lengths=LENGTHS[:1]),  # minutes at 2048
        ),
        lengths=LENGTHS,
    ),
    Case(
        "selective_scan",
        "B1 D64 N16",
        lambda length: selective_tensors(length, 1, 64),
        (replace(SELECTIVE, repeats=5),),
        growth=GROWTH,
    ),
    Case(
        "first_order_scan",
        "B4 D256",
        lambda length: scan_tensors(length, 4, 256),
        (
            FIRST_ORDER,
            Contender("ssm_kit reference", lambda **t: first_order_scan(**t, backend="reference"), repeats=5),
            Contender("mambapy pscan", mambapy, needs="mambapy"),
            Contender("indexed loop", indexed, repeats=1),
        ),
        lengths=LENGTHS,
    ),
    Case(
        "first_order_scan",
        "B1 D64",
        lambda length: scan_tensors(length, 1, 64),
        (replace(FIRST_ORDER, repeats=7),),
        growth=GROWTH,
    ),
]
