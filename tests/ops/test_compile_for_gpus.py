"""Every Triton kernel compiles for the GPUs that readers have, and fits them: for the T4, the only test there is.

It needs no GPU, for Triton brings its assembler. Each GPU has a process of its own, see compile_for_gpu.py.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

pytest.importorskip("triton", reason="the kernels need Triton")


class Gpu(NamedTuple):
    capability: str
    processors: int
    shared: int  # KiB of shared memory that one block may have
    dtypes: tuple[str, ...]


GPUS = {
    "T4": Gpu("7.5", 40, 64, ("float16", "float32")),
    "A100": Gpu("8.0", 108, 163, ("bfloat16", "float32")),
    "H100": Gpu("9.0", 132, 227, ("bfloat16", "float32")),
    "RTX 5080": Gpu("12.0", 84, 99, ("bfloat16", "float32")),
}
Run = subprocess.CompletedProcess


def run(gpu: Gpu, cache: Path) -> Run:
    script = Path(__file__).with_name("compile_for_gpu.py")
    command = [sys.executable, str(script), gpu.capability, str(gpu.processors), *gpu.dtypes]
    # An empty cache, so that all is compiled; without line numbers, which take a quarter of the time.
    environment = os.environ | {
        "TRITON_CACHE_DIR": str(cache),
        "TRITON_DISABLE_LINE_INFO": "1",
        "TRITON_INTERPRET": "0",
    }
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Run]:
    """By GPU, two of them at a time."""
    with ThreadPoolExecutor(2) as pool:
        caches = [tmp_path_factory.mktemp(name) for name in GPUS]
        return dict(zip(GPUS, pool.map(run, GPUS.values(), caches), strict=True))


@pytest.mark.parametrize("name", GPUS)
def test_every_kernel_compiles_and_fits_the_shared_memory(name, runs):
    assert runs[name].returncode == 0, runs[name].stderr
    shared = json.loads(runs[name].stdout)
    assert not [kernel for kernel, size in shared.items() if size is None], "kernels that no operator launched"
    assert {kernel: size for kernel, size in shared.items() if size > 1024 * GPUS[name].shared} == {}
