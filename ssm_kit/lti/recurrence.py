"""The discrete state equation, run step by step: h_k = Ā h_{k-1} + B̄ x_k, y_k = C h_k + D x_k."""

import math

from ssm_kit.lti._arrays import Array, arrays, is_dense, require_per_channel, require_shape


def recurrence(
    A_bar: Array,
    B_bar: Array,
    C: Array,
    x: Array,
    *,
    D: Array | None = None,
    initial_state: Array | None = None,
    return_states: bool = False,
) -> Array | tuple[Array, Array]:
    """Run h_k = Ā h_{k-1} + B̄ x_k, y_k = C h_k + D x_k over a sequence (Mamba, arXiv 2312.00752, eq. 2).

    Args:
        A_bar: (N,) diagonal or (N, N) dense for one channel; (D, N) or (D, N, N) for D independent channels.
        B_bar: (N,) or (D, N).
        C: the shape of B_bar.
        x: (..., L) for one channel, (..., L, D) for D channels; the leading axes are a batch; L >= 1.
        D: the skip term, a scalar or one per channel; None for none.
        initial_state: h before the first step, (..., N) or (..., D, N), batch axes included; None for zeros.
        return_states: also return every state h_1 .. h_L. The last one continues the sequence as `initial_state`.

    Returns:
        y, the shape of x; with `return_states`, (y, states) with states (..., L, N) or (..., L, D, N).
        Library and common dtype of the arguments: complex parameters give a complex y (take `.real`).

    Raises:
        ValueError: shapes that do not fit, NaN or infinity, a dtype that is not floating, numpy mixed with torch.
    """
    skip, start = (0.0 if value is None else value for value in (D, initial_state))
    xp, (A_bar, B_bar, C, x, skip, h) = arrays(A_bar=A_bar, B_bar=B_bar, C=C, x=x, D=skip, initial_state=start)
    dense = require_model(A_bar, B_bar, C, skip)
    require_sequence("x", x, B_bar)
    inputs = xp.moveaxis(x, -B_bar.ndim, 0)  # (L, ...) or (L, ..., D): time first
    state_shape = (*inputs.shape[1:], B_bar.shape[-1])
    if initial_state is not None:
        require_shape("initial_state", h, state_shape, "x without its time axis, then N")
    h = xp.broadcast_to(h, state_shape)
    outputs, states = [], []
    for x_k in inputs:
        h = advance(A_bar, h, dense) + B_bar * x_k[..., None]
        outputs.append((C * h).sum(-1) + skip * x_k)
        if return_states:
            states.append(h)
    y = xp.moveaxis(xp.stack(outputs), 0, -B_bar.ndim)
    return (y, xp.moveaxis(xp.stack(states), 0, -B_bar.ndim - 1)) if return_states else y


def half_life(a_bar: Array) -> Array:
    """Steps after which the factor āᵏ has shrunk to one half: ln 2 / −ln|ā|.

    Args:
        a_bar: eigenvalues or diagonal entries of Ā, real or complex, any shape.

    Returns:
        The number of steps (not rounded), real, the shape of a_bar: 0 where ā = 0, infinity where |ā| >= 1.

    Raises:
        ValueError: NaN or infinity, or a dtype that is not floating.
    """
    xp, (a_bar,) = arrays(a_bar=a_bar)
    size = abs(a_bar)
    fading = (size > 0) & (size < 1)
    never_or_at_once = xp.where(size < 1, size * 0, math.inf)
    return xp.where(fading, math.log(2) / -xp.log(xp.where(fading, size, 0.5)), never_or_at_once)


def advance(matrix: Array, h: Array, dense: bool) -> Array:
    """Apply Ā, or a power of it, to states h (..., N) or (..., D, N)."""
    return (matrix @ h[..., None])[..., 0] if dense else matrix * h


def require_model(A_bar: Array, B_bar: Array, C: Array, D: Array) -> bool:
    """Check the parameters of one model or of D independent ones; return whether A_bar is dense."""
    dense = is_dense(A_bar, B_bar, ("A_bar", "B_bar"))
    if B_bar.ndim > 2:
        raise ValueError(f"B_bar must have shape (N,) or (D, N); got {tuple(B_bar.shape)}")
    require_shape("C", C, tuple(B_bar.shape), "the shape of B_bar")
    require_per_channel("D", D, tuple(B_bar.shape[:-1]))
    return dense


def require_sequence(name: str, x: Array, B_bar: Array) -> None:
    """Check that x is (..., L) beside a B_bar of (N,), or (..., L, D) beside (D, N), with L >= 1."""
    channels = tuple(B_bar.shape[:-1])
    expected = "(..., L)" if not channels else f"(..., L, {channels[0]})"
    ends_well = x.ndim >= B_bar.ndim and tuple(x.shape[x.ndim - len(channels) :]) == channels
    if not ends_well or x.shape[-B_bar.ndim] < 1:
        raise ValueError(f"{name} must have shape {expected} with L >= 1; got {tuple(x.shape)}")
