"""What the GPU kernels share on the host, whichever language they are written in. Importing it needs no GPU."""

import functools

import torch
from torch import Tensor

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def unsupported_dtype(*tensors: Tensor | None) -> str | None:
    """Why the kernels cannot take these tensors (None is skipped), or None; for `_dispatch.resolve`.

    They read float32, bfloat16 and float16 and compute in float32. bfloat16 came with compute capability 8.0.
    """
    given = [tensor for tensor in tensors if tensor is not None]
    for tensor in given:
        if tensor.dtype not in _DTYPES:
            return f"the kernels take float32, bfloat16 and float16; got {str(tensor.dtype).removeprefix('torch.')}"
    gpu = torch.cuda.get_device_properties(given[0].device)
    if gpu.major < 8 and any(tensor.dtype == torch.bfloat16 for tensor in given):
        return f"{gpu.name} has no bfloat16: use float16"
    return None


@functools.cache
def capability(device: torch.device) -> tuple[int, int] | None:
    """The compute capability of the GPU; None for Triton's interpreter, which has no GPU."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else None


@functools.cache
def processors(device: torch.device) -> int:
    """How many multiprocessors the GPU has; Triton's interpreter, which has no GPU, counts as one."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def rows(tensor: Tensor) -> Tensor:
    """(B, L, ...), copied unless every step is dense and `stride(1)` leads to the next, also across sequences."""
    if tensor.shape[1] == 1:
        sequence, _, *others = tensor.stride()  # torch lets an axis of one step have any stride
        tensor = tensor.as_strided(tensor.shape, (sequence, sequence, *others))
    if tensor.is_contiguous():
        return tensor
    even = tensor.shape[0] == 1 or tensor.stride(0) == tensor.shape[1] * tensor.stride(1)
    in_place = even and tensor.stride(1) > 0 and tensor[0, 0].is_contiguous()
    return tensor if in_place else dense_copy(tensor)


def dense_copy(tensor: Tensor) -> Tensor:
    """A copy with the strides of its shape, also where `contiguous` would see no need for one."""
    return tensor.clone(memory_format=torch.contiguous_format)


def with_dense_channels(tensor: Tensor) -> Tensor:
    """The tensor itself if its last axis is dense, as the kernels read it (other axes may be strided), or a copy."""
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()
