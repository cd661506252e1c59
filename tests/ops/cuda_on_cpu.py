"""CUDA C++ kernels run on a CPU, by g++ and fibers, in place of `ssm_kit.ops._nvrtc.launch`: see cuda_on_cpu.h."""

import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch

from ssm_kit.ops._nvrtc import Source

COMPILER = shutil.which("g++")

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
    folder = Path(tempfile.mkdtemp())
    (folder / "kernel.cpp").write_text(f'#include "cuda_on_cpu.h"\n{code}\n{main}')
    options = [
        "-std=c++17",
        "-O1",
        "-fno-strict-aliasing",
        "-shared",
        "-fPIC",
        "-w",
        "-Wl,-Bsymbolic",
        f"-I{Path(__file__).parent}",
    ]
    subprocess.run([COMPILER, *options, folder / "kernel.cpp", "-o", folder / "kernel.so"], check=True)
    return ctypes.CDLL(str(folder / "kernel.so"))
