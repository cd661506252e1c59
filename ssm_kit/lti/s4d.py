"""S4D: drop the low-rank part and keep the diagonal (arXiv 2206.11893). Four choices of that diagonal.

Of each conjugate pair of eigenvalues one is kept, so N real state entries become N/2 complex ones, and the model's
kernel is 2 Re Σ_n C_n B̄_n Ā_nⁱ: `2 * kernel(A_bar, B_bar, C, length).real`. B may be fixed at 1, since C takes up any
factor.
"""

import math

import numpy as np

from ssm_kit.lti._arrays import require_count
from ssm_kit.lti.s4 import legs_dplr

S4D_KINDS = ("legs", "lin", "inv", "real")


def s4d_init(size: int, kind: str = "legs") -> np.ndarray:
    """The diagonal of A at initialisation.

    Args:
        size: N, the number of real state entries; even, except for "real".
        kind: "legs"  the eigenvalues of the normal part of HiPPO-LegS, Im > 0 (S4D-LegS).
              "lin"   A_n = −½ + iπn (S4D-Lin), n = 0 .. N/2 − 1; its first entry is real.
              "inv"   A_n = −½ + i (N/π)(N/(2n+1) − 1) (S4D-Inv): close to "legs", in closed form.
              "real"  A_n = −(n+1) (S4D-Real), n = 0 .. N − 1: the eigenvalues of LegS itself; Mamba's start.

    Returns:
        (N/2,) complex128, or (N,) float64 for "real"; a NumPy array.

    Raises:
        ValueError: unknown kind, size < 1, an odd size where pairs are needed.
    """
    if kind not in S4D_KINDS:
        raise ValueError(f"kind must be one of {', '.join(S4D_KINDS)}; got {kind!r}")
    require_count("size", size)
    if kind == "real":
        return -np.arange(1.0, size + 1)
    if size % 2:
        raise ValueError(f"size must be even for kind {kind}, which keeps one of each conjugate pair; got {size}")
    n = np.arange(size // 2)
    if kind == "legs":
        return legs_dplr(size).Lambda[size // 2 :]
    imaginary = math.pi * n if kind == "lin" else size / math.pi * (size / (2 * n + 1) - 1)
    return -0.5 + 1j * imaginary
