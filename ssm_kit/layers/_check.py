"""What every layer asks of its sizes and inputs; a refusal is a ValueError: the argument, what was expected, what came.

What concerns tensors alone is in `ssm_kit.ops._check`.
"""

from typing import Any

from torch import Tensor

from ssm_kit.ops._check import require_floating, require_shape


def require_positive(**sizes: int | None) -> None:
    """Raise ValueError unless every size is an integer >= 1 (or None)."""
    for name, size in sizes.items():
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
            raise ValueError(f"{name} must be an integer >= 1; got {size!r}")


def require_range(name: str, low: float, high: float, *, zero: bool = False) -> None:
    """Raise ValueError unless 0 < low <= high; with `zero`, 0 <= low will do."""
    if not (0 < low <= high or (zero and 0 == low <= high)):
        raise ValueError(f"{name} must be a pair with 0 {'<=' if zero else '<'} low <= high; got {(low, high)}")


def require_input(x: Any, axes: str, d_model: int) -> None:
    """Raise ValueError unless x is a floating tensor with these axes, "B L" or "B", none empty, and d_model last."""
    require_floating(x=x)
    wanted = f"({', '.join(axes.split())}, d_model = {d_model})"
    if x.ndim != len(axes.split()) + 1 or x.shape[-1] != d_model or 0 in x.shape:
        raise ValueError(f"x must have shape {wanted} without an empty axis; got {tuple(x.shape)}")


def require_state(state: Any, expected: Any) -> None:
    """Raise ValueError unless the state is one of its layer's: its type, and every tensor in the expected shape.

    Args:
        state: what the caller handed in.
        expected: a state of the right type and shapes, on any device; None for a layer without memory.
    """
    if type(state) is not type(expected):
        wanted = "None" if expected is None else f"a {type(expected).__name__} or None"
        raise ValueError(f"state must be {wanted}; got {type(state).__name__}")
    if expected is None:
        return
    for name, tensor, like in zip(expected._fields, state, expected, strict=True):
        if not isinstance(tensor, Tensor):
            raise ValueError(f"state.{name} must be a torch.Tensor; got {type(tensor).__name__}")
        require_shape(f"state.{name}", tensor, tuple(like.shape), "(B, ...)")
