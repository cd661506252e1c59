"""Compile the operators' Triton kernels for a GPU that need not be there, as the operators would launch them on it.

    python compile_for_gpu.py 7.5 40 float16 float32

prints the bytes of shared memory that each kernel takes at most, as JSON; null: no launch needed it. The arguments are
the GPU's compute capability, its number of multiprocessors, and the dtypes to call the operators with: the first with
packed sequences, the others without. All tensors are on the CPU.
"""

import importlib
import json
import pkgutil
import sys

import torch
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from ssm_kit import ops
from ssm_kit.ops import _gpu

LENGTH, HEADS = 2048, 4
"""So long a sequence, with so few heads, is cut into segments."""

PACKED = torch.tensor([0, 3, LENGTH])
"""Bounds of two sequences."""


class Driver:
    """What Triton asks the driver of a GPU for before it compiles."""

    def __init__(self, capability: tuple[int, int]) -> None:
        self.target = GPUTarget("cuda", 10 * capability[0] + capability[1], 32)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def name_of(kernel: JITFunction) -> str:
    return f"{kernel.fn.__module__.removeprefix('ssm_kit.ops.')}.{kernel.fn.__name__}"


def kernels() -> set[str]:
    """The operators' Triton functions, less those that others call."""
    modules = [importlib.import_module(module.name) for module in pkgutil.walk_packages(ops.__path__, "ssm_kit.ops.")]
    functions = [value for module in modules for value in vars(module).values() if isinstance(value, JITFunction)]
    called = (f.fn.__globals__.get(name) for f in functions for name in f.fn.__code__.co_names)
    return {name_of(f) for f in functions} - {name_of(f) for f in called if isinstance(f, JITFunction)}


def compile_only(shared: dict[str, int | None]) -> None:
    """From here on, to launch a kernel is to compile it, and to note its shared memory."""
    run = JITFunction.run

    def compiled(kernel: JITFunction, *arguments, **options):
        binary = run(kernel, *arguments, **options | {"warmup": True})
        assert binary.asm["cubin"].startswith(b"\x7fELF")
        shared[name_of(kernel)] = max(shared[name_of(kernel)] or 0, binary.metadata.shared)
        return binary

    JITFunction.run = compiled


def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(shape, dtype=dtype, requires_grad=True)


def first_order_scan(dtype: torch.dtype) -> None:
    from ssm_kit.ops.first_order_scan import cuda

    a, b, state = zeros(1, LENGTH, 256, dtype=dtype), zeros(1, LENGTH, 256, dtype=dtype), zeros(1, 256)
    h, _ = cuda.scan(a, b, state, False)
    h.sum().backward()
    cuda.step(a[:, 0], b[:, 0], state)


def causal_conv1d(dtype: torch.dtype, bounds: Tensor | None) -> None:
    from ssm_kit.ops.causal_conv1d import cuda

    x, weight, bias = zeros(1, LENGTH, 256, dtype=dtype), zeros(256, 4, dtype=dtype), zeros(256, dtype=dtype)
    cuda.scan(x, weight, bias, None, bounds, True).sum().backward()
    cuda.step(x[:, 0], weight, bias, zeros(1, 3, 256), True)


def ssd(dtype: torch.dtype, bounds: Tensor | None) -> None:
    from ssm_kit.ops.ssd import _launch

    rows = 1 if bounds is None else 2
    x, B = zeros(1, LENGTH, HEADS, 64, dtype=dtype), zeros(1, LENGTH, 1, 128, dtype=dtype)
    delta, A, state = zeros(1, LENGTH, HEADS), zeros(HEADS), zeros(rows, HEADS, 64, 128)
    inputs = _launch.Inputs(x, delta, A, B, B, D=A, z=x, delta_bias=A, initial_state=state, cu_seqlens=bounds)
    with torch.no_grad():
        y, ungated, final = _launch.forward(inputs, True, True)
        _launch.backward(inputs, True, y, final, ungated)
        x, delta, B = (tensor[:, 0] for tensor in (x, delta, B))
        _launch.step(x, delta, A, B, B, state[:1], A, x, A, True)


def gated_delta(dtype: torch.dtype, bounds: Tensor | None, width: int) -> None:
    from ssm_kit.ops.gated_delta import cuda

    rows = 1 if bounds is None else 2
    q, v = zeros(1, LENGTH, 2, width, dtype=dtype), zeros(1, LENGTH, HEADS, width, dtype=dtype)
    gate, state = zeros(1, LENGTH, HEADS), zeros(rows, HEADS, width, width)
    o, _ = cuda.scan(q, q, v, gate, gate, state, bounds, 1.0, True)
    o.sum().backward()
    cuda.step(q[:, 0], q[:, 0], v[:, 0], gate[:, 0], gate[:, 0], state[:1], 1.0, True)


def main(capability: str, processors: str, *dtypes: str) -> None:
    major, minor = map(int, capability.split("."))
    # Before the kernels' modules are imported, for they take these functions by name.
    _gpu.capability = lambda device: (major, minor)
    _gpu.processors = lambda device: int(processors)
    driver.set_active(Driver((major, minor)))
    shared: dict[str, int | None] = dict.fromkeys(sorted(kernels()))
    compile_only(shared)
    for name in dtypes:
        dtype, bounds = getattr(torch, name), PACKED if name == dtypes[0] else None
        first_order_scan(dtype)
        causal_conv1d(dtype, bounds)
        ssd(dtype, bounds)
        gated_delta(dtype, bounds, 128)
    gated_delta(torch.float32, None, 256)  # the widest keys, in the widest dtype
    print(json.dumps(shared))


if __name__ == "__main__":
    main(*sys.argv[1:])
