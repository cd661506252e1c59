"""What the GPU kernels share on the host, whichever language they are written in. Importing it needs no GPU."""

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


def with_dense_channels(tensor: Tensor) -> Tensor:
    """The tensor itself if its last axis is dense, as the kernels read it (other axes may be strided), or a copy."""
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()
