"""HiPPO-LegS: a state that holds the history of its input as coefficients of Legendre polynomials.

The same two arrays A and B serve two different memories:

- x'(t) = (A x + B u) / t weighs the whole past evenly: at time t the state is the best polynomial fit, in least
  squares, to the input over [0, t] (HiPPO, arXiv 2008.07669). `legs_states` runs it.
- x'(t) = A x + B u, without 1/t, is what S4 uses: the same fit to a past that is warped by e^-age, so the weight of
  what lies a time s back has faded to e^-s (arXiv 2206.12037). `discretize` and `recurrence` run it.

`reconstruct` draws the remembered input from either state.
"""

import math

import numpy as np

from ssm_kit.lti._arrays import Array, arrays, require, require_count
from ssm_kit.lti.discretize import discretize


def hippo_legs(size: int) -> tuple[np.ndarray, np.ndarray]:
    """The HiPPO-LegS matrices (S4, arXiv 2111.00396, eq. 2): A_nk = −√(2n+1)√(2k+1) below the diagonal, −(n+1) on it.

    Args:
        size: N, the number of coefficients, >= 1: polynomials of degree 0 .. N − 1.

    Returns:
        (A, B), float64 NumPy arrays of shape (N, N) and (N,). A is lower triangular and carries the minus sign, so
        its eigenvalues are −1 .. −N; B_n = √(2n+1). `torch.from_numpy` takes them over.

    Raises:
        ValueError: size is not an integer >= 1.
    """
    require_count("size", size)
    n = np.arange(size)
    scale = np.sqrt(2 * n + 1.0)
    return -np.tril(np.outer(scale, scale), -1) - np.diag(n + 1.0), scale


def legs_states(x: Array, size: int, *, method: str = "zoh") -> Array:
    """Run the time-varying x'(t) = (A x + B u) / t with LegS matrices; sample k of the input fills time k − 1 to k.

    In the time log t the equation is time-invariant, and one step from k − 1 to k lasts log(k / (k − 1)): "zoh" uses
    this and is exact for an input held between samples, so that each state is exactly the Legendre coefficients of
    the staircase so far. "bilinear" takes steps of 1/k, as the authors' code does (state-spaces/s4, `HiPPO_LegS`); its
    first steps are far too long for the fast modes, and what they got wrong fades as 1/k.

    Args:
        x: (..., L), L >= 1.
        size: N, the number of coefficients, >= 1.
        method: "zoh" or "bilinear".

    Returns:
        states, (..., L, N), in the library and dtype of x; O(L N³) work. Their unit is that of x: a constant input
        c gives (c, 0, 0, ...), whatever its length.

    Raises:
        ValueError: unknown method, size < 1, an empty x, NaN or infinity, a dtype that is not floating.
    """
    if method not in ("zoh", "bilinear"):
        raise ValueError(f"method must be zoh or bilinear; got {method!r}")
    xp, (x,) = arrays(x=x)
    if x.ndim < 1 or x.shape[-1] < 1:
        raise ValueError(f"x must have shape (..., L) with L >= 1; got {tuple(x.shape)}")
    A, B = (xp.asarray(part, dtype=x.dtype, device=x.device) for part in hippo_legs(size))
    state, states = B * 0, []
    for k, x_k in enumerate(xp.moveaxis(x, -1, 0), start=1):
        if k == 1 and method == "zoh":  # log(1 / 0): whatever the state was is forgotten, one constant remains
            A_bar, B_bar = A * 0, xp.eye(size, dtype=x.dtype, device=x.device)[0]
        else:
            A_bar, B_bar = discretize(A, B, math.log(k / (k - 1)) if method == "zoh" else 1 / k, method)
        state = (A_bar @ state[..., None])[..., 0] + B_bar * x_k[..., None]
        states.append(state)
    return xp.moveaxis(xp.stack(states), 0, -2)


def legendre(positions: Array, size: int) -> Array:
    """The Legendre polynomials p_n(s) = √(2n+1) P_n(2s − 1), orthonormal on [0, 1], for n = 0 .. size − 1.

    Args:
        positions: s, any shape, 0 <= s <= 1.
        size: N >= 1.

    Returns:
        (..., N), in the library and dtype of positions.

    Raises:
        ValueError: size < 1, positions outside [0, 1], NaN or infinity, a dtype that is not floating.
    """
    require_count("size", size)
    xp, (s,) = arrays(positions=positions)
    require("positions", s, (s >= 0) & (s <= 1), "between 0 and 1")
    z = 2 * s - 1
    values = [xp.ones_like(z), z]
    for n in range(1, size - 1):  # Bonnet's recursion, stable on [−1, 1]
        values.append(((2 * n + 1) * z * values[n] - n * values[n - 1]) / (n + 1))
    return xp.stack([math.sqrt(2 * n + 1) * value for n, value in enumerate(values[:size])], -1)


def reconstruct(states: Array, positions: Array) -> Array:
    """The input that a LegS state remembers, u(s) ≈ Σ_n x_n p_n(s), at positions s in its history.

    Args:
        states: (..., N), from `legs_states`, or from the time-invariant x' = Ax + Bu.
        positions: (M,), 0 <= s <= 1, with 1 the present. For `legs_states` s is the fraction of the elapsed time,
            0 the first instant. For the time-invariant model it is e^-age, with the age in the unit of time of A:
            0 is infinitely long ago.

    Returns:
        (..., M), in the library and common dtype of the arguments.

    Raises:
        ValueError: shapes that do not fit, positions outside [0, 1], NaN or infinity, a dtype that is not floating,
            numpy mixed with torch.
    """
    _, (states, positions) = arrays(states=states, positions=positions)
    if states.ndim < 1 or states.shape[-1] < 1:
        raise ValueError(f"states must have shape (..., N) with N >= 1; got {tuple(states.shape)}")
    if positions.ndim != 1:
        raise ValueError(f"positions must have shape (M,); got {tuple(positions.shape)}")
    return states @ legendre(positions, states.shape[-1]).T
