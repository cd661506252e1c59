"""What every operator asks of its arguments, before any work: tensors, dtypes, devices, shapes, signs.

Every refusal is a ValueError that names the argument, says what was expected and what came. An operator checks in
this order, for all its backends at once, in its public function:

    require_floating(x=x, delta=delta, D=D)            # real; None is skipped everywhere in this module
    require_floating_or_complex(A=A, B=B, C=C)
    require_one_device(x=x, delta=delta, A=A, B=B, C=C, D=D)
    size = bind_shapes(x=(x, "B L D"), delta=(delta, "B L D"), A=(A, "D N"), B=(B, "B L N | B L G N"))
    require_multiple("D", size["D"], "G", size.get("G", 1))
    require_nonnegative("delta", delta)                # unless softplus comes after

`bind_shapes` gives every letter its size at the letter's first appearance and holds the others to it, so the argument
that users think of first (x, q) comes first. Sizes are at least 1: an empty sequence is refused.

Dtypes: the operators compute in `compute_dtype(...)` of all their tensors, float32 for half precision, and return
outputs in the dtype of their first tensor; states stay in the compute dtype.
"""

import functools
from collections.abc import Iterator

import torch
from torch import Tensor

from ssm_kit._values import known

_REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_COMPLEX = (torch.complex64, torch.complex128)


def require_floating(**tensors: Tensor | None) -> None:
    """Raise ValueError unless every argument is a tensor of real floating numbers (or None)."""
    _require_dtype(_REAL, tensors)


def require_floating_or_complex(**tensors: Tensor | None) -> None:
    """Raise ValueError unless every argument is a tensor of floating numbers, real or complex (or None)."""
    _require_dtype((*_REAL, *_COMPLEX), tensors)


def require_one_device(**tensors: Tensor | None) -> None:
    """Raise ValueError unless all arguments lie on the device of the first."""
    (first, anchor), *others = _given(tensors)
    for name, tensor in others:
        if tensor.device != anchor.device:
            raise ValueError(f"{name} must be on {first}'s device, {anchor.device}; got {tensor.device}")


def bind_shapes(**arguments: tuple[Tensor | None, str]) -> dict[str, int]:
    """Match tensors with the letters of their shapes; return the size behind every letter.

    Args:
        arguments: name=(tensor, letters), as in x=(x, "B L D"). Alternatives of different rank are separated by
            a bar, "B L N | B L G N". A tensor that is None is skipped.

    Raises:
        ValueError: a rank that fits no alternative, a size that differs from the letter's earlier one, or a size of 0.
    """
    sizes: dict[str, int] = {}
    for name, (tensor, letters) in arguments.items():
        if tensor is None:
            continue
        forms = [form.split() for form in letters.split("|")]
        form = next((form for form in forms if len(form) == tensor.ndim), None)
        if form is None:
            raise ValueError(f"{name} must have shape {' or '.join(map(_shape, forms))}; got {tuple(tensor.shape)}")
        if any(sizes.get(letter, size) != size for letter, size in zip(form, tensor.shape, strict=True)):
            known = _shape([str(sizes.get(letter, letter)) for letter in form])
            raise ValueError(f"{name} must have shape {_shape(form)} = {known}; got {tuple(tensor.shape)}")
        if 0 in tensor.shape:
            raise ValueError(f"{name} must have shape {_shape(form)} without an empty axis; got {tuple(tensor.shape)}")
        sizes.update(zip(form, tensor.shape, strict=True))
    return sizes


def require_shape(name: str, tensor: Tensor, shape: tuple[int, ...], meaning: str) -> None:
    """Raise ValueError unless the tensor has this shape; `meaning` names its axes, as in "(S, D, N)"."""
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} must have shape {meaning} = {shape}; got {tuple(tensor.shape)}")


def require_multiple(name: str, size: int, divisor_name: str, divisor: int) -> None:
    """Raise ValueError unless one size is a multiple of another, as heads are of groups."""
    if size % divisor:
        raise ValueError(f"{name} must be a multiple of {divisor_name} = {divisor}; got {size}")


def require_nonnegative(name: str, tensor: Tensor) -> None:
    """Raise ValueError if any element is below zero. A NaN passes: it will show in the result.

    What `ssm_kit._values` says nobody may look at passes.
    """
    if known(tensor) and (lowest := tensor.detach().amin().item()) < 0:
        raise ValueError(f"{name} must be >= 0, or pass delta_softplus=True; got {lowest}")


def require_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise ValueError unless the value is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")


def compute_dtype(*tensors: Tensor | None) -> torch.dtype:
    """The dtype to compute in: the common one of the tensors, and at least float32."""
    dtypes = (tensor.dtype for tensor in tensors if tensor is not None)
    return functools.reduce(torch.promote_types, dtypes, torch.float32)


def _require_dtype(allowed: tuple[torch.dtype, ...], tensors: dict[str, Tensor | None]) -> None:
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name} must be a torch.Tensor; got {type(tensor).__name__}")
        if tensor.dtype not in allowed:
            expected = ", ".join(str(dtype).removeprefix("torch.") for dtype in allowed)
            raise ValueError(f"{name} must have a dtype of {expected}; got {str(tensor.dtype).removeprefix('torch.')}")


def _given(tensors: dict[str, Tensor | None]) -> Iterator[tuple[str, Tensor]]:
    return ((name, tensor) for name, tensor in tensors.items() if tensor is not None)


def _shape(letters: list[str]) -> str:
    return f"({', '.join(letters)}{',' if len(letters) == 1 else ''})"
