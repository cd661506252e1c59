"""CUDA C++ kernels run on a CPU, by g++ and fibers, in place of `ssm_kit.ops._nvrtc.launch`: see cuda_on_cpu.h."""

import ctypes
import functools
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from ssm_kit.ops._nvrtc import Source

PROBE = "#include <ucontext.h>\n_Float16 half;"

PTX = {
    'asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(v.bits));': "f = from_half(v.bits);",
    'asm("cvt.rn.f16.f32 %0, %1;" : "=h"(v.bits) : "f"(f));': "v.bits = to_half(f);",
    'asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));': "y = std::exp2(x);",
    'asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));': "y = 1 / x;",
}
"""What C++ says in the place of instructions."""

MAIN = """
extern "C" void run_grid(long long* a, int blocks, int threads) {{
    fibers::stacks.reset(new char[(size_t)threads * fibers::STACK]);
    fibers::kernel = [a] {{ ((void (*)({types})) {kernel})({arguments}); }};
    for (int b = 0; b < blocks; ++b) blockIdx.x = b, fibers::run_block(threads);
}}
"""


@functools.cache
def available() -> bool:
    """Whether there is a g++ that knows fibers and half precision, on a system whose linker knows its options."""
    if sys.platform != "linux":
        return False
    try:
        command = ["g++", "-x", "c++", "-fsyntax-only", "-"]
        return subprocess.run(command, input=PROBE, text=True, stderr=subprocess.DEVNULL).returncode == 0
    except FileNotFoundError:
        return False


def launch(source: Source, blocks: int, threads: int, *arguments: Any) -> None:
    """As `_nvrtc.launch`, with tensors on the CPU."""
    tensors = [argument for argument in arguments if isinstance(argument, torch.Tensor)]
    assert all(tensor.device.type == "cpu" for tensor in tensors)
    values = [argument.data_ptr() if isinstance(argument, torch.Tensor) else argument or 0 for argument in arguments]
    library = _compiled(source, len(values))
    library.run_grid((ctypes.c_longlong * len(values))(*values), blocks, threads)


@functools.cache
def _compiled(source: Source, count: int) -> ctypes.CDLL:
    """Pointers and integers arrive as 64-bit numbers, as on a GPU."""
    code = "\n".join([source.constants, *(file.read_text(encoding="utf-8") for file in source.files)])
    for instruction, expression in PTX.items():
        assert code.count(instruction) == 1, f"numbers.cuh has changed: {instruction}"
        code = code.replace(instruction, expression)
    main = MAIN.format(
        types=", ".join(["long long"] * count),
        kernel=source.kernel,
        arguments=", ".join(f"a[{i}]" for i in range(count)),
    )
    # -Bsymbolic: a kernel may be named like a function of the C library, as `step` is.
    options = ["-std=c++17", "-O1", "-fno-strict-aliasing", "-shared", "-fPIC", "-w", "-Wl,-Bsymbolic"]
    with tempfile.TemporaryDirectory() as folder:
        program, library = Path(folder, "kernel.cpp"), Path(folder, "kernel.so")
        program.write_text(f'#include "cuda_on_cpu.h"\n{code}\n{main}')
        subprocess.run(["g++", *options, f"-I{Path(__file__).parent}", program, "-o", library], check=True)
        return ctypes.CDLL(str(library))
