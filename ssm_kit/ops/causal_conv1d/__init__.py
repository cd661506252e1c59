"""The short causal convolution in front of every Mamba-like operator: each channel sees its last few inputs."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ssm_kit.ops import _check
from ssm_kit.ops._dispatch import full_precision, resolve, step_on_gpu
from ssm_kit.ops._varlen import run_packed, sequence_bounds, sequence_count
from ssm_kit.ops.causal_conv1d import reference, shifted


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    *,
    bias: Tensor | None = None,
    activation: str | None = None,
    initial_state: Tensor | None = None,
    return_final_state: bool = False,
    cu_seqlens: Tensor | None = None,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """y_t = f(bias + Σ_k weight_k x_{t - W + 1 + k}), channel by channel: the last tap meets the present input.

    The convolution of Mamba's block, arXiv 2312.00752, figure 3, with W = 4 there.

    Args:
        x: (B, L, D) input, real floating (as weight, bias and initial_state), no axis empty.
        weight: (D, W), W >= 1 taps per channel.
        bias: (D,).
        activation: None, or "silu", also called "swish".
        initial_state: the W - 1 inputs before the first, oldest first, (B, W - 1, D), with `cu_seqlens`
            (S, W - 1, D); None for zeros.
        return_final_state: return the last W - 1 inputs too, those of initial_state included.
        cu_seqlens: (S + 1,) int32 or int64, the bounds 0, ..., L of S sequences packed end to end; B must be 1.
        backend: "reference", "torch", "cuda" or "auto".

    Returns:
        y (B, L, D) in the dtype of x. With `return_final_state`, (y, state): state (B, W - 1, D), or (S, W - 1, D),
        in the common dtype of all arguments and at least float32.

    Raises:
        ValueError: shapes that do not fit, dtypes that are not real floating, several devices, bad `cu_seqlens`, an
            unknown activation or backend.
        NotImplementedError: backend="cuda" for float64, for very many taps, or where its packages are missing.
    """
    size = _check_arguments("B L D", x, weight, bias, activation)
    backend = resolve(backend, "causal_conv1d", x.device, lambda: _obstacle(x, weight, bias, initial_state))
    rows, meaning, bounds = size["B"], "(B, W - 1, D)", None
    if cu_seqlens is not None and backend == "cuda":
        rows, meaning = sequence_count(cu_seqlens, batch=size["B"], length=size["L"]), "(S, W - 1, D)"
    elif cu_seqlens is not None:
        bounds = sequence_bounds(cu_seqlens, batch=size["B"], length=size["L"])
        rows, meaning = len(bounds) - 1, "(S, W - 1, D)"
    shape = (rows, size["W"] - 1, size["D"])
    _check_state("initial_state", initial_state, x, shape, meaning)
    dtype = _check.compute_dtype(x, weight, bias, initial_state)
    if backend == "cuda":
        from ssm_kit.ops.causal_conv1d import cuda

        y = cuda.scan(x, weight, bias, initial_state, cu_seqlens, activation is not None)
        return (y, cuda.final_state(x, initial_state, cu_seqlens, size["W"])) if return_final_state else y
    convolve = {"reference": reference, "torch": shifted}[backend].convolve
    state = x.new_zeros(shape, dtype=dtype) if initial_state is None else initial_state.to(dtype)

    def run(tensors: tuple[Tensor, ...], start: Tensor) -> tuple[Tensor, Tensor]:
        padded = torch.cat([start, tensors[0].to(dtype)], dim=1)  # (B, W - 1 + L, D)
        return convolve(padded, weight.to(dtype)), padded[:, padded.shape[1] - start.shape[1] :].clone()

    with full_precision(x.device):
        y, state = run((x,), state) if bounds is None else run_packed(run, bounds, (x,), state)
        y = _finish(y, bias, activation).to(x.dtype)
    return (y, state) if return_final_state else y


def causal_conv1d_step(
    x: Tensor, weight: Tensor, *, state: Tensor, bias: Tensor | None = None, activation: str | None = None
) -> tuple[Tensor, Tensor]:
    """One step of `causal_conv1d`, for decoding: the same arguments without their time axis.

    Args:
        x: (B, D).
        weight: (D, W).
        state: the W - 1 inputs before this one, oldest first, (B, W - 1, D); it is not changed.
        bias: (D,).
        activation: as in `causal_conv1d`.

    Returns:
        y (B, D) in the dtype of x, and the next state (B, W - 1, D) as `causal_conv1d` returns it.

    Raises:
        ValueError: as `causal_conv1d`.
    """
    size = _check_arguments("B D", x, weight, bias, activation)
    _check_state("state", state, x, (size["B"], size["W"] - 1, size["D"]), "(B, W - 1, D)")
    if step_on_gpu("causal_conv1d_step", _obstacle, x, weight, bias, state):
        from ssm_kit.ops.causal_conv1d import cuda

        return cuda.step(x, weight, bias, state, activation is not None)
    dtype = _check.compute_dtype(x, weight, bias, state)
    window = torch.cat([state.to(dtype), x[:, None].to(dtype)], dim=1)  # (B, W, D)
    y = reference.convolve(window, weight.to(dtype))[:, 0]
    return _finish(y, bias, activation).to(x.dtype), window[:, 1:].clone()


def _obstacle(x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor | None) -> str | None:
    from ssm_kit.ops.causal_conv1d import cuda

    return cuda.unsupported(x, weight, bias, state)


def _check_arguments(
    axes: str, x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None
) -> dict[str, int]:
    _check.require_floating(x=x, weight=weight, bias=bias)
    _check.require_one_device(x=x, weight=weight, bias=bias)
    _check.require_choice("activation", activation, (None, "silu", "swish"))
    return _check.bind_shapes(x=(x, axes), weight=(weight, "D W"), bias=(bias, "D"))


def _check_state(name: str, state: Tensor | None, x: Tensor, shape: tuple[int, ...], meaning: str) -> None:
    _check.require_floating(**{name: state})
    _check.require_one_device(x=x, **{name: state})
    if state is not None:
        _check.require_shape(name, state, shape, meaning)


def _finish(y: Tensor, bias: Tensor | None, activation: str | None) -> Tensor:
    y = y if bias is None else y + bias.to(y.dtype)
    return y if activation is None else F.silu(y)
