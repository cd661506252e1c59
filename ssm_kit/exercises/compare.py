"""Call a reader's function safely and describe how its result differs from the expected one."""

import contextlib
import inspect
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np


class ChangedArgument(Exception):
    """The reader's function wrote into the array that it was given."""


def blank(answer: Any) -> bool:
    """Is this an answer that nobody has written yet?"""
    return answer is None or answer is ...


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """A wrong answer may overflow or divide by zero; the verdict says so better than a warning does."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def call(function: Callable, arguments: tuple) -> Any:
    """The function's result on NumPy copies or, if it fails on them, on torch copies where torch is in use."""
    try:
        return _call(function, arguments, np.array)
    except (NotImplementedError, ChangedArgument):
        raise
    except Exception:
        # Importing torch takes seconds: a reader who answers in torch has imported it already.
        torch = sys.modules.get("torch")
        if torch is None:
            raise
        with contextlib.suppress(Exception):
            return _call(function, arguments, torch.tensor)
        raise


def _call(function: Callable, arguments: tuple, copy: Callable) -> Any:
    copies = tuple(copy(a) if isinstance(a, np.ndarray) else a for a in arguments)
    with _quiet():
        result = function(*copies)
    for original, given in zip(arguments, copies, strict=True):
        if isinstance(original, np.ndarray) and not np.array_equal(original, plain(given), equal_nan=True):
            raise ChangedArgument
    return result


def plain(value: Any) -> Any:
    """Tensors become arrays; tuples and lists that hold arrays become tuples of arrays."""
    if hasattr(value, "detach"):
        return value.detach().cpu().resolve_conj().numpy()
    if isinstance(value, tuple | list) and any(isinstance(v, tuple | list) or hasattr(v, "shape") for v in value):
        return tuple(plain(v) for v in value)
    return value


def difference(expected: Any, got: Any, tolerance: float) -> tuple[str, str] | None:
    """None where `got` equals `expected` within `tolerance` of its largest value, else a text for each of the two."""
    got = plain(got)
    if isinstance(expected, tuple):
        return _difference_of_tuples(expected, got, tolerance)
    wanted = np.asarray(expected)
    try:
        given = np.asarray(got)
    except ValueError:  # rows of unequal length
        return describe(wanted), f"a {type(got).__name__} that is no array"
    if given.dtype.kind not in "biufc":
        return describe(wanted), f"a {type(got).__name__}"
    if given.shape != wanted.shape:
        return describe(wanted), describe(given)
    return _difference_of_values(wanted, given, tolerance)


def _difference_of_tuples(expected: tuple, got: Any, tolerance: float) -> tuple[str, str] | None:
    if not isinstance(got, tuple | list) or len(got) != len(expected):
        count = f"{len(got)} values" if isinstance(got, tuple | list) else describe(got)
        return f"{len(expected)} values", count
    for number, (wanted, given) in enumerate(zip(expected, got, strict=True), 1):
        if found := difference(wanted, given, tolerance):
            return f"value {number}: {found[0]}", f"value {number}: {found[1]}"
    return None


def _difference_of_values(wanted: np.ndarray, given: np.ndarray, tolerance: float) -> tuple[str, str] | None:
    agree = np.isclose(given, wanted, rtol=0, atol=tolerance * _scale(wanted), equal_nan=True)
    if agree.all():
        return None
    with _quiet():
        gap = np.abs(given - wanted)
    where = np.unravel_index(np.argmax(np.where(agree, -1, np.nan_to_num(gap, nan=np.inf))), wanted.shape)
    place = f"; at [{', '.join(map(str, where))}]: " if wanted.ndim else "; "
    texts = _tell_apart(wanted[where], given[where])
    return describe(wanted) + place + texts[0], describe(given) + place + texts[1]


def _scale(wanted: np.ndarray) -> float:
    finite = np.abs(wanted[np.isfinite(wanted)])
    return float(finite.max(initial=0)) or 1.0


def _tell_apart(first: Any, second: Any) -> tuple[str, str]:
    """Both numbers with the fewest digits that show a difference."""
    texts = ("", "")
    for digits in (4, 8, 17):
        texts = (f"{first:.{digits}g}", f"{second:.{digits}g}")
        if texts[0] != texts[1]:
            break
    return texts


def describe(value: Any) -> str:
    """Shape and dtype of an array, the value itself of a number or of a short vector of numbers."""
    value = plain(value)
    if isinstance(value, str | dict | set) or callable(value):
        return f"a {type(value).__name__}"
    if isinstance(value, tuple):
        return f"{len(value)} arrays"
    array = np.asarray(value)
    if array.ndim == 0:
        return f"the number {array[()]:.6g}" if array.dtype.kind in "iufc" else f"a {type(value).__name__}"
    if array.ndim == 1 and 0 < array.size <= 4 and array.dtype.kind in "iufc":
        return "[" + ", ".join(f"{number:.4g}" for number in array) + "]"
    return f"shape {array.shape}, {array.dtype}"


def describe_arguments(function: Callable, arguments: tuple) -> str:
    """Such as "x: shape (7, 2), float64; a: 0.9", with the names of `function`'s parameters."""
    names = inspect.signature(function).parameters
    return "; ".join(
        f"{name}: {describe(value).removeprefix('the number ')}" for name, value in zip(names, arguments, strict=True)
    )


def describe_error(function: Callable, error: Exception) -> str:
    """The error, and the line of the reader's own function that caused it."""
    code = getattr(function, "__code__", None)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if code and f.filename == code.co_filename]
    place = f" in the line `{frames[-1].line}`" if frames and frames[-1].line else ""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}{': ' if message else ''}{message}{place}"
