"""Time the two faces of one linear time-invariant layer on one GPU: recurrence, and kernel plus FFT convolution.

    python -m experiments.two_faces --out ssm_kit/results/two_faces.json

`ssm_kit.lti` as it stands: 512 real channels with N = 16, eight sequences, float32. The recurrence is a Python loop
over time, and what it costs is mostly the launching of its small kernels: that is the point of comparing.
"""

from functools import partial

import torch

from experiments.gpu_timing import EAGER, milliseconds, relative_error
from experiments.machine import run
from ssm_kit.lti import convolve, discretize, kernel, recurrence

CHANNELS, N, BATCH = 512, 16, 8
LENGTHS = [2**k for k in range(10, 16)]


def layer():
    A = -torch.arange(1.0, N + 1, device="cuda").repeat(CHANNELS, 1)
    delta = torch.logspace(-3, -1, CHANNELS, device="cuda")
    return *discretize(A, torch.ones_like(A), delta), torch.randn(CHANNELS, N, device="cuda")


def measure():
    model = layer()
    x = torch.randn(BATCH, 1000, CHANNELS, device="cuda")
    expected = recurrence(*(p.double() for p in model), x.double())
    found = {"recurrence": recurrence(*model, x), "convolution": convolve(x, kernel(*model, 1000))}
    errors = {name: relative_error(y, expected) for name, y in found.items()}
    if not max(errors.values()) < 1e-4:
        raise SystemExit(f"errors against float64 are too large: {errors}")
    data = {"relative_error": errors, "recurrence": [], "kernel": [], "convolution": []}
    for length in LENGTHS:
        x = torch.randn(BATCH, length, CHANNELS, device="cuda")
        K = kernel(*model, length)
        data["recurrence"].append(milliseconds(partial(recurrence, *model, x), EAGER))
        data["kernel"].append(milliseconds(partial(kernel, *model, length), EAGER))
        data["convolution"].append(milliseconds(partial(convolve, x, K), EAGER))
        print(length, *(f"{name} {data[name][-1][0]:.3f} ms" for name in ("recurrence", "kernel", "convolution")))
    settings = {"lengths": LENGTHS, "channels": CHANNELS, "N": N, "batch": BATCH, "dtype": "float32", "timing": EAGER}
    return settings, data


if __name__ == "__main__":
    run(
        "experiments/two_faces.py",
        "Time of one LTI layer on one GPU: recurrence against kernel and convolution",
        measure,
        device="cuda",
    )
