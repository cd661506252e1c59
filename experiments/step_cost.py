"""Time one step of a linear recurrence on one GPU: diagonal against dense, for growing state size.

    python -m experiments.step_cost --out ssm_kit/results/step_cost.json

h = Ā h + B̄ x for 512 channels and one sequence, float32. The diagonal step reads Ā (512, N), the dense one
Ā (512, N, N). Sixteen sets of inputs take turns, so that no step finds its matrix in the cache by luck of being last.
"""

import torch

from experiments.gpu_timing import GRAPH, milliseconds, relative_error
from experiments.machine import run

CHANNELS, SIZES, SETS = 512, [16, 32, 64, 128, 256, 512], 16


def steps(N, dense):
    """One function that makes a step with each of the sets in turn, and the sets."""
    shape = (CHANNELS, N, N) if dense else (CHANNELS, N)
    matrices = [torch.rand(shape, device="cuda") / N for _ in range(SETS)]
    h, B_bar, x = (torch.randn(size, device="cuda") for size in ((CHANNELS, N), (CHANNELS, N), (CHANNELS, 1)))

    def one(A_bar):
        kept = (A_bar @ h[..., None])[..., 0] if dense else A_bar * h
        return kept + B_bar * x

    A = matrices[0].double()
    expected = ((A @ h.double()[..., None])[..., 0] if dense else A * h.double()) + B_bar.double() * x.double()
    return lambda: [one(A_bar) for A_bar in matrices], relative_error(one(matrices[0]), expected)


def measure():
    data = {}
    for name, dense in (("diagonal", False), ("dense", True)):
        times, errors = [], []
        for N in SIZES:
            function, error = steps(N, dense)
            errors.append(error)
            times.append([round(t / SETS, 6) for t in milliseconds(function)])
            print(f"{name:9s} N {N:4d}  {1000 * times[-1][0]:9.2f} µs a step", flush=True)
        data[name] = {"relative_error": errors, "milliseconds_median_p10_p90": times}
    settings = {"N": SIZES, "channels": CHANNELS, "batch": 1, "dtype": "float32", "sets": SETS, "timing": GRAPH}
    return settings, data


if __name__ == "__main__":
    what = "Time of one step of a linear recurrence on one GPU, diagonal and dense"
    run("experiments/step_cost.py", what, measure, device="cuda")
