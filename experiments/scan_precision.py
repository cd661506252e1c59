"""How the rounding error of a scan grows with its length, for six ways to compute it, and where two of them break.

    python -m experiments.scan_precision --out ssm_kit/results/scan_precision.json      (CPU, about four minutes)
    python -m experiments.scan_precision --smoke

h_t = a_t h_{t-1} + b_t with a_t = exp(-s_t): random b, and steps s_t log-uniform over a factor of 100, in the middle of
which a state lasts 1000 steps, 30 steps or one. Each way gets the same s and b in float32 and is
compared with a float64 loop over the last steps: ‖h − h64‖ / ‖h64‖.
"""

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

from experiments.machine import run
from ssm_kit.ops import first_order_scan

LASTING = {"1000 steps": 1e-3, "30 steps": 3e-2, "1 step": 1.0}
CHANNELS, LAST = 64, 16
SEEDS = (0, 1, 2)


def loop(decays: Tensor, inputs: Tensor) -> Tensor:
    """One step after the other; every state is rounded to the dtype of the inputs."""
    h, states = torch.zeros_like(inputs[0]), deque(maxlen=LAST)
    for a, b in zip(decays, inputs, strict=True):
        h = a * h + b
        states.append(h)
    return torch.stack(tuple(states))


def float32_loop(s: Tensor, b: Tensor) -> Tensor:
    return loop(torch.exp(-s), b)


def bfloat16_inputs(s: Tensor, b: Tensor) -> Tensor:
    """What comes in is rounded to bfloat16, the state is kept in float32: how the GPU kernels work."""
    return loop(torch.exp(-s).bfloat16().float(), b.bfloat16().float())


def bfloat16_states(s: Tensor, b: Tensor) -> Tensor:
    return loop(torch.exp(-s).bfloat16(), b.bfloat16()).float()


def float32_chunks(s: Tensor, b: Tensor) -> Tensor:
    """`first_order_scan` as it runs on any device."""
    return first_order_scan(torch.exp(-s)[None], b[None], backend="torch")[0, -LAST:]


def quotients(s: Tensor, b: Tensor) -> Tensor:
    """h_t = P_t Σ b_j / P_j with P_t = exp(-(s_1 + … + s_t)): two running sums, no loop, and P runs out of float32."""
    total = s.cumsum(0)
    return (torch.exp(-total) * (torch.exp(total) * b).cumsum(0))[-LAST:]


def logarithms(s: Tensor, b: Tensor) -> Tensor:
    """The same sums in logarithms (arXiv 2311.06281), the positive and negative part of b apart: P cannot run out."""
    total = s.cumsum(0)
    parts = [torch.logcumsumexp(total + part.clamp_min(0).log(), 0) - total for part in (b, -b)]
    return (parts[0].exp() - parts[1].exp())[-LAST:]


WAYS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "float32 loop": float32_loop,
    "float32 chunks": float32_chunks,
    "bfloat16 inputs, float32 state": bfloat16_inputs,
    "bfloat16 state": bfloat16_states,
    "quotients of running products": quotients,
    "logarithms": logarithms,
}


def draw(length: int) -> tuple[Tensor, Tensor]:
    """s and b of all lastings and seeds side by side, (length, lastings · seeds · channels)."""
    steps, inputs = [], []
    for middle in LASTING.values():
        for seed in SEEDS:
            generator = torch.Generator().manual_seed(seed)
            spread = torch.rand(length, CHANNELS, generator=generator)
            steps.append(middle * 100 ** (spread - 0.5))
            inputs.append(torch.randn(length, CHANNELS, generator=generator))
    return torch.cat(steps, 1), torch.cat(inputs, 1)


def errors(found: Tensor, expected: Tensor) -> list[list[float | None]]:
    """‖found − expected‖ / ‖expected‖ for each lasting and seed; None where a number is not finite."""
    shape = (LAST, len(LASTING), len(SEEDS), CHANNELS)
    off, size = ((x.double().view(shape)).norm(dim=(0, 3)) for x in (found - expected, expected))
    return [[float(f"{e:.3g}") if e == e and e != float("inf") else None for e in row] for row in (off / size).tolist()]


def measure(longest: int) -> tuple[dict, dict]:
    """Errors by way, lasting, length and seed."""
    lengths = [2**k for k in range(4, longest.bit_length())]
    data: dict = {way: {lasting: [] for lasting in LASTING} for way in WAYS}
    for length in lengths:
        s, b = draw(length)
        expected = loop(torch.exp(-s.double()), b.double())
        for way, compute in WAYS.items():
            for lasting, seeds in zip(LASTING, errors(compute(s, b).double(), expected), strict=True):
                data[way][lasting].append(seeds)
        print(f"length {length}: " + ", ".join(f"{way} {data[way]['30 steps'][-1][0]}" for way in WAYS), flush=True)
    settings = {"lengths": lengths, "middle_step": LASTING, "channels": CHANNELS, "compared": f"the last {LAST} steps"}
    return settings, data


if __name__ == "__main__":
    run(
        "experiments/scan_precision.py",
        "Relative error of a scan's last states against float64, by way of computing and length; null: not finite",
        lambda: measure(2**17),
        device="cpu",
        smoke=lambda: measure(2**9),
        seeds=SEEDS,
    )
