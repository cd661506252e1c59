"""CUDA C++ kernels, compiled when first called: no build step, no nvcc, no headers.

`cuda.core` brings NVRTC and launches on torch's current stream, so the kernels obey streams and CUDA graphs (warm up
before a capture: compiling cannot be captured). Importing this module needs neither a GPU nor `cuda.core`.
"""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

_INSTALL = 'the package cuda.core is missing: pip install "ssm_kit[gpu]"'


class Source(NamedTuple):
    """A kernel's name, the C++ that fixes its types and constants, and the files that come after it."""

    kernel: str
    constants: str
    files: tuple[Path, ...]


def unavailable() -> str | None:
    """Why nothing can be compiled here, or None."""
    try:  # an import, for torch.compile can see through it
        import cuda.core  # noqa: F401
    except ModuleNotFoundError:
        return _INSTALL
    return None


def compile_source(source: Source, arch: str) -> Any:
    """Compile for an architecture, as in "sm_90", to a `cuda.core.ObjectCode`; needs no GPU.

    Raises:
        ModuleNotFoundError: without `cuda.core`.
    """
    if why := unavailable():
        raise ModuleNotFoundError(why, name="cuda.core")
    from cuda.core import Program, ProgramOptions

    code = "\n".join([source.constants, *(file.read_text(encoding="utf-8") for file in source.files)])
    return Program(code, "c++", ProgramOptions(arch=arch, std="c++17")).compile("cubin")


def launch(source: Source, blocks: int, threads: int, *arguments: Tensor | int | None) -> None:
    """Launch on the current stream of the first tensor's device: tensors as pointers, None as a null pointer.

    Integers arrive as 64-bit ones.
    """
    from cuda.core import Device, LaunchConfig, Stream
    from cuda.core import launch as launch_kernel

    device = next(argument.device for argument in arguments if isinstance(argument, Tensor))
    with torch.cuda.device(device):
        values = [argument.data_ptr() if isinstance(argument, Tensor) else argument or 0 for argument in arguments]
        Device(device.index).set_current()  # autograd calls from threads of its own
        stream = Stream.from_handle(torch.cuda.current_stream(device).cuda_stream)
        launch_kernel(stream, LaunchConfig(grid=blocks, block=threads), _loaded(source, device.index), *values)


@functools.cache
def _loaded(source: Source, device: int) -> Any:
    from cuda.core import Device

    Device(device).set_current()
    major, minor = torch.cuda.get_device_capability(device)
    return compile_source(source, f"sm_{major}{minor}").get_kernel(source.kernel)
