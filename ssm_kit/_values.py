"""Whether a check may look at a tensor's values."""

import torch
from torch import Tensor


def known(tensor: Tensor) -> bool:
    """False while torch.compile traces or a CUDA graph is recorded: nothing may wait for a value then."""
    return not (torch.compiler.is_compiling() or (tensor.is_cuda and torch.cuda.is_current_stream_capturing()))
