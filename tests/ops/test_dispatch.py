"""The choice of a backend, what it says, and the shared checks."""

import functools
import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch
from oracles import DOUBLE, assert_same

from ssm_kit.ops import _check, _dispatch, _gpu, _varlen, selective_scan
from ssm_kit.ops._dispatch import resolve

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(("backend", "path"), [("auto", "torch"), ("torch", "torch"), ("reference", "reference")])
def test_on_the_cpu_nothing_is_said(backend, path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolve(backend, "an_operator", CPU) == path


def test_a_gpu_without_kernels_is_said_once_per_operator(monkeypatch):
    monkeypatch.setattr(_dispatch, "_warned", set())
    with pytest.warns(RuntimeWarning, match='first has no GPU kernel yet and runs as backend="torch"') as caught:
        assert [resolve("auto", "first", GPU) for _ in range(3)] == ["torch"] * 3
    assert len(caught) == 1
    with pytest.warns(RuntimeWarning, match="second has no GPU kernel"):
        resolve("auto", "second", GPU)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolve("torch", "third", GPU) == "torch"


def test_the_warning_points_at_the_caller(monkeypatch):
    monkeypatch.setattr(_dispatch, "_warned", set())

    def operator():
        return resolve("auto", "an_operator", GPU)

    with pytest.warns(RuntimeWarning) as caught:
        operator()
    assert caught[0].filename == __file__


def test_a_call_that_the_kernels_serve_runs_on_them():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [resolve(backend, "an_operator", GPU, lambda: None) for backend in ("auto", "cuda")] == ["cuda"] * 2
        assert resolve("auto", "an_operator", CPU, lambda: pytest.fail("asked for tensors on the CPU")) == "torch"


def no_such_package():
    raise ModuleNotFoundError("No module named 'tritonium'", name="tritonium")


@pytest.mark.parametrize(
    ("obstacle", "reason"),
    [
        (lambda: "they take no complex numbers", r"for this call \(they take no complex numbers\)"),
        (no_such_package, r"for this call \(tritonium is not installed, see the extra \[gpu\] of ssm_kit\)"),
        (None, "yet"),
    ],
)
def test_a_call_that_the_kernels_cannot_serve(obstacle, reason, monkeypatch):
    monkeypatch.setattr(_dispatch, "_warned", set())
    with pytest.warns(RuntimeWarning, match=f'an_operator has no GPU kernel {reason} and runs as backend="torch"'):
        assert resolve("auto", "an_operator", GPU, obstacle) == "torch"
    with pytest.raises(NotImplementedError, match=f'an_operator has no GPU kernel {reason}: use backend="torch"'):
        resolve("cuda", "an_operator", GPU, obstacle)


def test_kernels_want_tensors_on_a_gpu():
    with pytest.raises(ValueError, match='backend="cuda" must be given tensors on a CUDA device; got cpu'):
        resolve("cuda", "an_operator", CPU, lambda: None)


@pytest.mark.parametrize(
    ("dtypes", "major", "reason"),
    [
        ((torch.float32, torch.float16, None), 7, None),
        ((torch.float32, torch.bfloat16), 8, None),
        ((torch.float32, torch.bfloat16), 7, "Tesla T4 has no bfloat16: use float16"),
        ((torch.bfloat16, torch.complex64), 9, "the kernels take float32, bfloat16 and float16; got complex64"),
        ((torch.float64,), 9, "the kernels take float32, bfloat16 and float16; got float64"),
    ],
)
def test_dtypes_of_the_kernels(dtypes, major, reason, monkeypatch):
    properties = SimpleNamespace(major=major, name="Tesla T4")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    assert _gpu.unsupported_dtype(*(dtype and torch.zeros(1, dtype=dtype) for dtype in dtypes)) == reason


def test_packed_sequences_are_counted_without_a_look_at_the_offsets(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "_assert_async", lambda holds, message: asked.append((bool(holds), message)))
    for bounds in ([0, 3, 7], [0, 3, 3, 7], [1, 7], [0, 6]):
        assert _varlen.sequence_count(torch.tensor(bounds), batch=1, length=7) == len(bounds) - 1
    assert [holds for holds, _ in asked] == [True, False, False, False]
    assert asked[0][1] == "cu_seqlens must rise at every step, from 0 to L = 7"
    with pytest.raises(ValueError, match="cu_seqlens must come with tensors of batch size 1"):
        _varlen.sequence_count(torch.tensor([0, 7]), batch=2, length=7)


def test_half_precision_is_computed_in_single():
    half, single = torch.zeros(1, dtype=torch.bfloat16), torch.zeros(1)
    assert _check.compute_dtype(half, None, half.half()) == torch.float32
    assert _check.compute_dtype(half, single.double()) == torch.float64
    assert _check.compute_dtype(half, single + 0j) == torch.complex64
    assert _check.compute_dtype(single.double(), single + 0j) == torch.complex128


def test_letters_bind_at_their_first_appearance():
    size = _check.bind_shapes(x=(torch.zeros(2, 3), "B D"), none=(None, "Q"), y=(torch.zeros(3, 4, 5), "D G N | D N"))
    assert size == {"B": 2, "D": 3, "G": 4, "N": 5}


def test_importing_the_operators_asks_for_no_gpu_and_compiles_nothing():
    code = "import ssm_kit.ops, torch, sys; assert not torch.cuda.is_initialized(); assert 'triton' not in sys.modules"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.gpu
def test_the_torch_backend_on_a_gpu_equals_the_definition():
    generator = torch.Generator("cuda").manual_seed(0)
    new = {"device": "cuda", "dtype": torch.float64}
    x, delta, z = torch.rand(3, 2, 101, 6, generator=generator, **new)
    B, C = torch.randn(2, 2, 101, 2, 3, generator=generator, **new)
    tensors = {"x": x, "delta": delta, "A": -torch.rand(6, 3, generator=generator, **new), "B": B, "C": C, "z": z}
    assert_same(
        lambda **t: selective_scan(**t, backend="torch", return_final_state=True),
        lambda **t: selective_scan(**t, backend="reference", return_final_state=True),
        tensors,
        **DOUBLE,
    )


@pytest.mark.gpu
def test_more_elements_than_an_int32_counts():
    """Offsets beyond 2^31 were silently wrong in mamba (#884, #1015, #503): whole = two halves with a carried state."""
    batch, length, channels = 1, 2**20 + 3, 2**11
    if torch.cuda.mem_get_info()[0] < 60 * 2**30:
        pytest.skip("needs 60 GiB of free GPU memory")
    x = torch.randn(batch, length, channels, device="cuda", dtype=torch.bfloat16)
    delta = torch.full_like(x, 0.01)
    A, B = -torch.ones(channels, 1, device="cuda"), torch.ones(batch, length, 1, device="cuda")
    on_gpu = functools.partial(selective_scan, return_final_state=True, backend="torch")
    with torch.no_grad():
        whole, final = on_gpu(x, delta, A, B, B)
        half, end = length // 2, None
        for now in (slice(half), slice(half, None)):
            y, end = on_gpu(x[:, now], delta[:, now], A, B[:, now], B[:, now], initial_state=end)
            torch.testing.assert_close(y, whole[:, now], rtol=0, atol=0)
    torch.testing.assert_close(end, final, rtol=0, atol=0)
