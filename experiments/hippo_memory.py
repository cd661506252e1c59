"""What a state of 64 numbers remembers of its input, against how long ago it was: random memories, HiPPO and S4D.

    python -m experiments.hippo_memory --out ssm_kit/results/hippo_memory.json      (CPU, one to five minutes)
    python -m experiments.hippo_memory --smoke

512 steps of band-limited noise go into a linear memory. From the last state alone, the best linear reader (least
squares on one set of signals) guesses what the input was d steps ago; printed is its error on signals that it has not
seen, as a part of the signal's own size: 0 is perfect, 1 is no idea. The state is rounded first, to float32 or to
bfloat16, since a memory whose numbers only differ in the tenth digit is of no use. Every memory with a time scale gets
a sweep of it, and the best on a third set of signals counts.
"""

from collections.abc import Iterator
from itertools import product

import numpy as np
import torch

from experiments.machine import run
from ssm_kit.lti import discretize, hippo_legs, legs_states, s4d_init

LENGTH, STATES = 512, 64
BANDS = {"16 waves": 1 / 32, "64 waves": 1 / 8}
"""Highest frequency in cycles per step: 512 steps then hold 16 or 64 full waves, 32 or 128 free numbers."""
HORIZONS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Sweep of Δ times the length."""
RADII = (0.9, 0.97, 0.99, 0.997, 1.0)
"""Sweep of the largest |eigenvalue| of a random memory."""
DELAYS = tuple(range(0, LENGTH, 16))
PRECISIONS = ("float32", "bfloat16")
SEEDS = (0, 1, 2)
SETS = {"fit": 1500, "choose": 300, "test": 300}


def signals(cutoff: float, seed: int, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """Sets of (M, LENGTH) unit-variance noise with frequencies below the cutoff only."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft(rng.standard_normal((sum(sizes.values()), 2 * LENGTH)))
    spectrum[:, np.fft.rfftfreq(2 * LENGTH) > cutoff] = 0
    noise = np.fft.irfft(spectrum)[:, :LENGTH]
    return dict(zip(sizes, np.split(noise / noise.std(), np.cumsum(list(sizes.values()))[:-1]), strict=True))


def responses(A_bar: np.ndarray, B_bar: np.ndarray) -> np.ndarray:
    """(LENGTH, numbers): how each input step shows in the last state, the last step last. Dense or diagonal Ā."""
    state, rows = B_bar, []
    for _ in range(LENGTH):
        rows.append(state)
        state = A_bar @ state if A_bar.ndim == 2 else A_bar * state
    rows = np.array(rows[::-1])
    return np.concatenate([rows.real, rows.imag], 1) if np.iscomplexobj(rows) else rows


def memories(seed: int) -> Iterator[tuple[str, float | None, np.ndarray]]:
    """Name, time scale and responses of each memory in the sweep; all hold STATES real numbers."""
    rng = np.random.default_rng(seed)
    A, B = rng.standard_normal((STATES, STATES)), rng.standard_normal(STATES)
    for radius in RADII:
        yield "random", radius, responses(radius * A / np.abs(np.linalg.eigvals(A)).max(), B)
    yield "LegS with 1/t", None, legs_states(np.eye(LENGTH), STATES)[:, -1]
    A, B = hippo_legs(STATES)
    diagonals = {f"S4D-{kind}": s4d_init(STATES, kind.lower()) for kind in ("LegS", "Lin", "Inv", "Real")}
    for horizon in HORIZONS:
        yield "LegS without 1/t", horizon, responses(*discretize(A, B, horizon / LENGTH))
        for name, poles in diagonals.items():
            yield name, horizon, responses(*discretize(poles, np.ones_like(poles), horizon / LENGTH))


def errors(response: np.ndarray, sets: dict[str, np.ndarray], dtype: torch.dtype) -> dict[str, np.ndarray]:
    """Root-mean-square error at every delay, on the sets "choose" and "test"."""
    scale = (sets["fit"] @ response).std(0) + 1e-300
    states = {name: torch.from_numpy(x @ response / scale).to(dtype).double().numpy() for name, x in sets.items()}
    past = {name: x[:, [LENGTH - 1 - delay for delay in DELAYS]] for name, x in sets.items()}
    reader = np.linalg.lstsq(states["fit"], past["fit"], rcond=1e-7)[0]
    return {name: np.sqrt(((states[name] @ reader - past[name]) ** 2).mean(0)) for name in ("choose", "test")}


Best = dict[tuple[str, str, str], tuple[float, float | None, np.ndarray]]
"""Band, precision and memory: error on the set "choose", time scale, errors on the set "test"."""


def best_of(seed: int, bands: dict[str, float], sizes: dict[str, int]) -> Best:
    """Every memory at the time scale that serves it best, for one seed."""
    sets = {band: signals(cutoff, seed, sizes) for band, cutoff in bands.items()}
    best: Best = {}
    for name, scale, response in memories(seed):
        for band, precision in product(bands, PRECISIONS):
            found = errors(response, sets[band], getattr(torch, precision))
            key = (band, precision, name)
            if key not in best or found["choose"].mean() < best[key][0]:
                best[key] = (found["choose"].mean(), scale, found["test"])
    return best


def measure(bands: dict[str, float], seeds: tuple[int, ...], sizes: dict[str, int]) -> tuple[dict, dict]:
    """For each band, precision and memory: errors by seed and delay, and the time scale chosen for each seed."""
    data: dict = {band: {precision: {} for precision in PRECISIONS} for band in bands}
    for seed in seeds:
        for (band, precision, name), (_, scale, error) in best_of(seed, bands, sizes).items():
            entry = data[band][precision].setdefault(name, {"scale": [], "error": []})
            entry["scale"].append(scale)
            entry["error"].append([float(f"{value:.3g}") for value in error])
            print(f"seed {seed}, {band}, {precision}, {name}: {error.mean():.4f}", flush=True)
    settings = {"length": LENGTH, "states": STATES, "delays": DELAYS, "signals": sizes, "cutoff": bands}
    return settings | {"horizons": HORIZONS, "radii": RADII}, data


if __name__ == "__main__":
    run(
        "experiments/hippo_memory.py",
        "Error of the best linear guess of past inputs from a state of 64 numbers, by delay, part of the signal's size",
        lambda: measure(BANDS, SEEDS, SETS),
        device="cpu",
        smoke=lambda: measure(
            {"16 waves": BANDS["16 waves"]}, SEEDS[:1], {name: size // 3 for name, size in SETS.items()}
        ),
        seeds=SEEDS,
    )
