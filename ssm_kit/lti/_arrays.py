"""NumPy or torch: the one place that knows which library an argument belongs to.

The functions of `ssm_kit.lti` are written once, with the names both libraries share (`xp.exp`, `xp.where`, ...).
torch is imported only by a caller who already holds tensors.
"""

import functools
import sys
from numbers import Number
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = Any
"""A `numpy.ndarray` or a `torch.Tensor`: every function returns the kind that it was given."""

_DTYPES = ("float32", "float64", "complex64", "complex128")


def arrays(**named: Any) -> tuple[ModuleType, list[Array]]:
    """Return (xp, values): the library of the arguments, and the arguments checked and cast to one common dtype.

    A Python number takes the dtype of the arrays beside it (float64 if there is none). Raises ValueError, naming
    the argument, for a mixture of libraries, a dtype other than float32/64 or complex64/128, and NaN or infinity.
    """
    xp = _library(named)
    values = {name: value if isinstance(value, Number) else _as_array(xp, name, value) for name, value in named.items()}
    given = [value for value in values.values() if not isinstance(value, Number)]
    dtype = functools.reduce(xp.promote_types, (value.dtype for value in given)) if given else xp.float64
    if any(isinstance(value, complex) for value in values.values()):
        dtype = xp.promote_types(dtype, xp.complex64)
    device = given[0].device if given else "cpu"
    cast = [_cast(xp, value, dtype, device) for value in values.values()]
    for name, value in zip(named, cast, strict=True):
        require(name, value, xp.isfinite(value), "finite")
    return xp, cast


def require(name: str, array: Array, valid: Array, expected: str) -> None:
    """Raise ValueError with the first element of `array` at which the boolean array `valid` is False.

    What `ssm_kit._values` says nobody may look at passes.
    """
    if _known(array) and not bool(valid.all()):
        raise ValueError(f"{name} must be {expected}; got {array[~valid].reshape(-1)[0].item()}")


def require_shape(name: str, array: Array, shape: tuple[int, ...], meaning: str) -> None:
    """Raise ValueError unless `array` has this shape; `meaning` says in words where the shape comes from."""
    if tuple(array.shape) != shape:
        raise ValueError(f"{name} must have shape {shape} ({meaning}); got {tuple(array.shape)}")


def require_per_channel(name: str, array: Array, channels: tuple[int, ...]) -> None:
    """Raise ValueError unless `array` is one scalar for all channels or holds one number per channel."""
    if tuple(array.shape) not in ((), channels):
        allowed = f"() or {channels}, one number per channel" if channels else "(), one number"
        raise ValueError(f"{name} must have shape {allowed}; got {tuple(array.shape)}")


def require_count(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is an integer >= 1."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be an integer >= 1; got {value!r}")


def is_dense(A: Array, B: Array, names: tuple[str, str]) -> bool:
    """True if A is dense (..., N, N), False if diagonal (..., N), judged by B (..., N); ValueError if neither."""
    diagonal, dense = tuple(B.shape), (*B.shape, *B.shape[-1:])
    if B.ndim < 1 or 0 in diagonal:
        raise ValueError(f"{names[1]} must have shape (..., N) with N >= 1; got {diagonal}")
    if tuple(A.shape) not in (diagonal, dense):
        raise ValueError(f"{names[0]} must have shape {diagonal} (diagonal) or {dense} (dense) beside {names[1]} "
                         f"of shape {diagonal}; got {tuple(A.shape)}")  # fmt: skip
    return bool(A.ndim > B.ndim)


def _known(array: Array) -> bool:
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(array, torch.Tensor):
        return True
    from ssm_kit._values import known  # imports torch

    return known(array)


def _library(named: dict[str, Any]) -> ModuleType:
    """torch if the arguments are tensors, else NumPy. A Python number belongs to neither and fits both."""
    torch = sys.modules.get("torch")  # whoever holds a tensor has imported torch
    kinds = {name: "torch" if torch is not None and isinstance(value, torch.Tensor) else "numpy"
             for name, value in named.items() if not isinstance(value, Number)}  # fmt: skip
    if len(set(kinds.values())) > 1:
        listed = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
        raise ValueError(f"arguments must be all numpy or all torch; got {listed}")
    return torch if torch is not None and "torch" in kinds.values() else np


def _as_array(xp: ModuleType, name: str, value: Any) -> Array:
    try:
        array = np.asarray(value) if xp is np else value
    except ValueError as error:
        raise ValueError(f"{name} must be an array of numbers; got {value!r}") from error
    if (dtype := str(array.dtype).removeprefix("torch.")) not in _DTYPES:
        raise ValueError(f"{name} must have dtype {', '.join(_DTYPES[:-1])} or {_DTYPES[-1]}; got {dtype}")
    return array


def _cast(xp: ModuleType, value: Any, dtype: Any, device: Any) -> Array:
    if isinstance(value, Number):
        return xp.full((), value, dtype=dtype, device=device)  # on a GPU this waits for nothing, as a copy would
    return value.astype(dtype, copy=False) if xp is np else value.to(dtype)
