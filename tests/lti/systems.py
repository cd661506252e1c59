"""Random stable models of every kind that `ssm_kit.lti` accepts, for property tests."""

from typing import NamedTuple

import hypothesis.strategies as st
import numpy as np

KINDS = ("real", "complex", "dense")
LENGTHS = (1, 2, 3, 5, 7, 16, 31, 64, 97, 127)


class System(NamedTuple):
    A_bar: np.ndarray
    B_bar: np.ndarray
    C: np.ndarray
    D: np.ndarray

    @property
    def channels(self) -> tuple[int, ...]:
        return self.B_bar.shape[:-1]

    def inputs(self, length: int, batch: tuple[int, ...] = (), seed: int = 0) -> np.ndarray:
        """Noise of shape (*batch, L) or (*batch, L, D)."""
        return np.random.default_rng([seed, length]).standard_normal((*batch, length, *self.channels))


def make_system(kind: str, channels: tuple[int, ...], size: int, seed: int) -> System:
    """A discrete model whose states never grow: |Ā| <= 1, for a dense Ā in the spectral norm."""
    rng = np.random.default_rng(seed)
    shape = (*channels, size)
    B, C, D = rng.standard_normal(shape), rng.standard_normal(shape), rng.standard_normal(channels)
    A = rng.uniform(-1, 1, shape)
    if kind == "complex":
        A = np.abs(A) * np.exp(1j * rng.uniform(0, 2 * np.pi, shape))
        B, C = B + 1j * rng.standard_normal(shape), C + 1j * rng.standard_normal(shape)
    if kind == "dense":
        A = rng.standard_normal((*shape, size))
        A *= rng.uniform(0.2, 1) / np.linalg.norm(A, 2, axis=(-2, -1), keepdims=True)
    return System(A, B, C, np.asarray(D))


systems = st.builds(
    make_system,
    kind=st.sampled_from(KINDS),
    channels=st.sampled_from([(), (1,), (3,)]),
    size=st.integers(1, 6),
    seed=st.integers(0, 2**32 - 1),
)


def step_by_step(system: System, x: np.ndarray, state: np.ndarray | None = None) -> np.ndarray:
    """The state equation for one channel and one sequence, written out entry by entry: the oracle."""
    A = system.A_bar if system.A_bar.ndim > system.B_bar.ndim else np.diag(system.A_bar)
    size = len(system.B_bar)
    h = [0.0] * size if state is None else list(state)
    y = []
    for x_k in x:
        h = [sum(A[n, m] * h[m] for m in range(size)) + system.B_bar[n] * x_k for n in range(size)]
        y.append(sum(system.C[n] * h[n] for n in range(size)) + system.D * x_k)
    return np.array(y)
