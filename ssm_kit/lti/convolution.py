"""The same map as one convolution: y = K ∗ x with the kernel K_i = C Āⁱ B̄, for models that do not change in time."""

from ssm_kit.lti._arrays import Array, arrays, require_count
from ssm_kit.lti.recurrence import advance, require_model


def kernel(A_bar: Array, B_bar: Array, C: Array, length: int, *, D: Array | None = None) -> Array:
    """The impulse response K_i = C Āⁱ B̄, i = 0 .. length − 1, with D added at i = 0 (Mamba, arXiv 2312.00752, eq. 3).

    Args:
        A_bar: (N,) diagonal or (N, N) dense for one channel; (D, N) or (D, N, N) for D independent channels.
        B_bar: (N,) or (D, N).
        C: the shape of B_bar.
        length: the number of taps, >= 1.
        D: the skip term, a scalar or one per channel; None for none.

    Returns:
        K, (L,) or (L, D) with L = length, in the library and common dtype of the arguments.

    Raises:
        ValueError: length < 1, shapes that do not fit, NaN or infinity, a dtype that is not floating,
            numpy mixed with torch.
    """
    require_count("length", length)
    xp, (A_bar, B_bar, C, skip) = arrays(A_bar=A_bar, B_bar=B_bar, C=C, D=0.0 if D is None else D)
    dense = require_model(A_bar, B_bar, C, skip)
    states, power = B_bar[None], A_bar  # Āⁱ B̄ for the taps so far, (taps, N) or (taps, D, N), and Ā^taps
    while (taps := states.shape[0]) < length:  # the first n taps times Āⁿ are the next n
        power = power if taps == 1 else (power @ power if dense else power * power)
        states = xp.concat([states, advance(power, states[: length - taps], dense)])
    K = (C * states).sum(-1)
    return xp.concat([K[:1] + skip, K[1:]])


def convolve(x: Array, K: Array) -> Array:
    """Causal convolution y_k = Σ_{i<=k} K_i x_{k−i} through the FFT, in O(L log L) per channel.

    Args:
        x: (..., L), or (..., L, D) beside a kernel of D channels.
        K: (L,), applied along the last axis of x, or (L, D), one kernel per channel; as long as x.

    Returns:
        y, the shape of x, in the library and common dtype of the arguments. The error is relative to the largest
        output, not to each one: an FFT spreads its rounding over the whole sequence.

    Raises:
        ValueError: shapes that do not fit, NaN or infinity, a dtype that is not floating, numpy mixed with torch.
    """
    xp, (x, K) = arrays(x=x, K=K)
    if K.ndim not in (1, 2) or 0 in K.shape:
        raise ValueError(f"K must have shape (L,) or (L, D) with L >= 1; got {tuple(K.shape)}")
    if tuple(x.shape[-K.ndim :]) != tuple(K.shape):
        raise ValueError(f"x must end in the shape of K, {tuple(K.shape)}, for a causal convolution over the whole "
                         f"sequence; got {tuple(x.shape)}")  # fmt: skip
    length, time = K.shape[0], -K.ndim
    # A circular convolution of 2L − 1 points or more has room for every product: nothing wraps round to the start.
    size = 1 << (2 * length - 2).bit_length()  # a power of two, which every FFT handles fast
    complex_input = "complex" in str(K.dtype)
    forward, back = (xp.fft.fft, xp.fft.ifft) if complex_input else (xp.fft.rfft, xp.fft.irfft)
    y = back(forward(x, size, time) * forward(K, size, 0), size, time)
    return xp.moveaxis(xp.moveaxis(y, time, 0)[:length], 0, time)
