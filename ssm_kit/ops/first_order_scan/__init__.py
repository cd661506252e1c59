"""The first-order scan: the linear recurrence under every model of the book, with one number of state per channel."""

import torch
from torch import Tensor

from ssm_kit.ops import _check
from ssm_kit.ops._dispatch import full_precision, resolve, step_on_gpu
from ssm_kit.ops.first_order_scan import chunked, reference


def first_order_scan(
    a: Tensor,
    b: Tensor,
    *,
    initial_state: Tensor | None = None,
    reverse: bool = False,
    return_final_state: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """h_t = a_t h_{t-1} + b_t for all t, elementwise; h_t = a_t h_{t+1} + b_t with `reverse`.

    The recurrence under every operator here; Griffin's RG-LRU (arXiv 2402.19427, §2.4) is nothing else.

    Args:
        a: (B, L, D) decays, floating or complex, no axis empty.
        b: (B, L, D) inputs.
        initial_state: (B, D) the state before the first step (with `reverse`, after the last); None for zeros.
        reverse: run from the end of the sequence to its beginning.
        return_final_state: return the state that the run ends in too.
        backend: "reference", "torch", "cuda" or "auto".

    Returns:
        h (B, L, D) in the common dtype of a and b, complex if initial_state is. With `return_final_state`, (h, state):
        state (B, D) in the common dtype of all arguments and at least float32.

    Raises:
        ValueError: shapes that do not fit, dtypes that are not floating, several devices, an unknown backend.
        NotImplementedError: backend="cuda" for complex numbers, float64, or where its packages are missing.
    """
    size = _check_arguments("B L D", a, b, "initial_state", initial_state)
    backend = resolve(backend, "first_order_scan", a.device, lambda: _obstacle(a, b, initial_state))
    if backend == "cuda":
        from ssm_kit.ops.first_order_scan import cuda

        h, state = cuda.scan(a, b, initial_state, reverse)
        return (h, state) if return_final_state else h
    run = {"reference": reference.scan, "torch": chunked.scan}[backend]
    dtype = _check.compute_dtype(a, b, initial_state)
    if initial_state is None:
        initial_state = a.new_zeros((size["B"], size["D"]), dtype=dtype)
    with full_precision(a.device):
        decays, inputs = (tensor.flip(1) if reverse else tensor for tensor in (a.to(dtype), b.to(dtype)))
        h = run(decays, inputs, initial_state.to(dtype))
    state = h[:, -1]
    h = h.flip(1) if reverse else h
    h = h if dtype.is_complex else h.to(torch.promote_types(a.dtype, b.dtype))
    return (h, state) if return_final_state else h


def first_order_scan_step(a: Tensor, b: Tensor, *, state: Tensor) -> Tensor:
    """One step of `first_order_scan`: a, b, state (B, D) -> the next state a · state + b (B, D).

    The result has the common dtype of all arguments and at least float32; `state` is not changed.
    Raises ValueError as `first_order_scan`.
    """
    _check_arguments("B D", a, b, "state", state)
    if step_on_gpu("first_order_scan_step", _obstacle, a, b, state):
        from ssm_kit.ops.first_order_scan import cuda

        return cuda.step(a, b, state)
    dtype = _check.compute_dtype(a, b, state)
    return reference.step(state.to(dtype), a.to(dtype), b.to(dtype))


def _obstacle(*tensors: Tensor | None) -> str | None:
    from ssm_kit.ops.first_order_scan import cuda

    return cuda.unsupported(*tensors)


def _check_arguments(letters: str, a: Tensor, b: Tensor, state_name: str, state: Tensor | None) -> dict[str, int]:
    named = {"a": a, "b": b, state_name: state}
    _check.require_floating_or_complex(**named)
    _check.require_one_device(**named)
    return _check.bind_shapes(a=(a, letters), b=(b, letters), **{state_name: (state, "B D")})
