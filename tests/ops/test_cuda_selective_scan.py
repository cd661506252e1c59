"""The CUDA kernels of `selective_scan`: that all of them compile, anywhere; that they are right, on a GPU."""

import importlib.util
import sys

import pytest
import torch
from torch import Tensor

from ssm_kit.ops import _nvrtc, selective_scan, selective_scan_step
from ssm_kit.ops.selective_scan import cuda
from ssm_kit.ops.selective_scan._launch import CARRY, SPAN, STEP, backward_shape, forward_shape, kernel_source

HALF, BFLOAT, SINGLE = torch.float16, torch.bfloat16, torch.float32
TIMED = ("x", "delta", "B", "C", "z")
TOLERANCE = {SINGLE: 1e-5, HALF: 5e-3, BFLOAT: 5e-3}

needs_compiler = pytest.mark.skipif(not importlib.util.find_spec("cuda.core"), reason="needs cuda.core")
gpu = pytest.mark.gpu


def sources(dtype: torch.dtype, states: int, softplus: int = 1, gate: int = 1) -> list[_nvrtc.Source]:
    options = {"SOFTPLUS": softplus, "GATE": gate}
    return [
        kernel_source("forward", dtype, states, forward_shape(states), **options),
        kernel_source("backward", dtype, states, backward_shape(states), **options),
        kernel_source("carry", dtype, states, CARRY, REVERSE=0, LAST=0, **options),
        kernel_source("carry", dtype, states, CARRY, REVERSE=1, LAST=1, **options),
        kernel_source("step", dtype, states, STEP, **options),
    ]


@needs_compiler
@pytest.mark.parametrize(
    ("arch", "dtype", "states", "kernels"),
    [
        ("sm_75", HALF, 16, ("forward", "backward", "carry", "step")),
        ("sm_75", SINGLE, cuda.MAX_STATES, ("forward", "backward", "carry", "step")),
        ("sm_80", BFLOAT, 8, ("carry",)),
        ("sm_90", SINGLE, cuda.MAX_STATES, ("backward",)),
    ],
)
def test_kernels_compile_without_a_gpu(arch, dtype, states, kernels):
    for source in sources(dtype, states):
        if source.kernel in kernels:
            assert _nvrtc.compile_source(source, arch).code.startswith(b"\x7fELF")


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.core", None)
    assert _nvrtc.unavailable() == 'the package cuda.core is missing: pip install "ssm_kit[gpu]"'
    with pytest.raises(ModuleNotFoundError, match=r'cuda\.core is missing: pip install "ssm_kit\[gpu\]"'):
        _nvrtc.compile_source(sources(SINGLE, 16)[0], "sm_90")


def test_too_many_states_are_refused():
    x, A = torch.zeros(1, 1, 2), torch.zeros(2, cuda.MAX_STATES + 1)
    assert cuda.unsupported(x, x, A) == "the kernels take N <= 64; got 65"


def make(
    length: int, *, batch: int = 2, channels: int = 40, states: int = 16, groups: int = 1, rows: int | None = None,
    dtype: torch.dtype = SINGLE, seed: int = 0, slow: float = 1.0,
) -> dict[str, Tensor]:  # fmt: skip
    """Random arguments on the GPU; with a small `slow`, states that remember long."""
    generator = torch.Generator("cuda").manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device="cuda")

    tensors = {
        "x": noise(batch, length, channels),
        "delta": noise(batch, length, channels) - 1,
        "A": -slow * noise(channels, states).abs(),
        "B": noise(batch, length, groups, states),
        "C": noise(batch, length, groups, states),
        "D": noise(channels),
        "z": noise(batch, length, channels),
        "delta_bias": noise(channels),
        "initial_state": noise(rows or batch, channels, states),
    }
    return {name: tensor.to(dtype) if name in TIMED else tensor for name, tensor in tensors.items()}


def gradients(backend: str, tensors: dict[str, Tensor], **options) -> dict[str, Tensor]:
    """y, the final state, and the gradient of every tensor through both, weighed by fixed noise."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    outputs = selective_scan(**leaves, **options, return_final_state=True, backend=backend)
    generator = torch.Generator("cuda").manual_seed(1)
    weights = [torch.randn(o.shape, generator=generator, device="cuda").to(o.dtype) for o in outputs]
    found = torch.autograd.grad(outputs, list(leaves.values()), weights)
    return {"y": outputs[0].detach(), "state": outputs[1].detach(), **dict(zip(leaves, found, strict=True))}


def assert_right(tensors: dict[str, Tensor], tolerance: float, **options) -> None:
    options = {"delta_softplus": True, **options}
    assert_near(gradients("cuda", tensors, **options), tensors, tolerance, **options)


def assert_near(found: dict[str, Tensor], tensors: dict[str, Tensor], tolerance: float, **options) -> None:
    wanted = gradients("torch", {name: tensor.double() for name, tensor in tensors.items()}, **options)
    for name, exact in wanted.items():
        error = float((found[name].double() - exact).norm() / exact.norm())
        assert error <= tolerance, f"{name}: relative error {error:.1e}"


@gpu
@pytest.mark.parametrize("length", [1, SPAN - 1, SPAN, SPAN + 1, 101, 256, 2100])
def test_lengths(length):
    assert_right(make(length), 1e-5)


@gpu
@pytest.mark.parametrize(("channels", "groups"), [(1, 1), (6, 2), (64, 1), (72, 3), (130, 2), (256, 256)])
def test_channels_and_groups(channels, groups):
    assert_right(make(37, channels=channels, groups=groups), 1e-5)


@gpu
@pytest.mark.parametrize("states", [1, 3, 8, 9, 16, 31, 32, 50, 64])
@pytest.mark.parametrize("dtype", [SINGLE, HALF, BFLOAT])
def test_states_and_dtypes(states, dtype):
    assert_right(make(67, states=states, dtype=dtype, channels=48), TOLERANCE[dtype])


@gpu
@pytest.mark.parametrize("dtype", [SINGLE, BFLOAT])
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (3, 100), (1, 2100)])
def test_states_at_the_ends_alone(batch, length, dtype):
    """What sequence-parallel ranks tell each other: the last state, and the gradient of the first."""
    tensors = make(length, batch=batch, dtype=dtype)
    x, delta, A, B, C, z, start = (tensors[name] for name in ("x", "delta", "A", "B", "C", "z", "initial_state"))
    steps = {"delta_bias": tensors["delta_bias"], "delta_softplus": True}
    end, through = cuda.boundary(x, delta, A, B, **steps)
    exact = {name: tensor.double() for name, tensor in tensors.items()}
    exact["initial_state"].requires_grad_()
    y, state = selective_scan(**exact, delta_softplus=True, return_final_state=True, backend="torch")
    dy = torch.randn_like(y).to(dtype)
    (wanted,) = torch.autograd.grad(y, [exact["initial_state"]], dy.double())
    found = {"state": end + through * start, "start": cuda.start_gradient(dy, delta, A, C, z=z, **steps)}
    for name, exactly in {"state": state, "start": wanted}.items():
        assert (found[name] - exactly).norm() <= TOLERANCE[dtype] * exactly.norm(), name


@gpu
@pytest.mark.parametrize("left_out", [("z",), ("D", "delta_bias"), ("D", "z", "delta_bias", "initial_state")])
def test_optional_arguments(left_out):
    tensors = {name: tensor for name, tensor in make(50).items() if name not in left_out}
    assert_right(tensors, 1e-5)


@gpu
def test_step_sizes_as_they_are():
    tensors = make(50)
    tensors["delta"], tensors["delta_bias"] = tensors["delta"].abs(), tensors["delta_bias"].abs()
    assert_right(tensors, 1e-5, delta_softplus=False)


@gpu
@pytest.mark.parametrize("groups", [1, 2])
def test_long_sequences_are_cut_into_segments_that_know_of_each_other(groups):
    assert_right(make(5000, batch=1, groups=groups, slow=0.01), 1e-5)


@gpu
@pytest.mark.parametrize("bounds", [(0, 1, 17, 33, 90, 101), (0, 1, 1500, 1533, 5101)])
def test_packed_sequences(bounds):
    tensors = make(bounds[-1], batch=1, rows=len(bounds) - 1, slow=0.05)
    assert_right(tensors, 1e-5, cu_seqlens=torch.tensor(bounds, device="cuda"))


@gpu
def test_strided_and_mixed_tensors():
    tensors = make(67, channels=64, dtype=BFLOAT)
    both = torch.cat([tensors["x"], tensors["z"]], dim=-1)
    tensors["x"], tensors["z"] = both.chunk(2, dim=-1)
    tensors["B"] = tensors["B"].float()
    assert_right(tensors, 5e-3)


@gpu
@pytest.mark.parametrize("bounds", [None, (0, 30, 133)])
def test_nothing_is_left_unwritten(bounds):
    """torch's deterministic mode fills fresh memory with NaN, so that a forgotten element shows."""
    tensors = make(133, batch=1, channels=72, states=9, groups=3, rows=None if bounds is None else 2)
    cu_seqlens = None if bounds is None else torch.tensor(bounds, device="cuda")
    options = {"delta_softplus": True, "cu_seqlens": cu_seqlens}
    torch.use_deterministic_algorithms(True)
    try:
        found = gradients("cuda", tensors, **options)
    finally:
        torch.use_deterministic_algorithms(False)
    assert_near(found, tensors, 1e-5, **options)


@gpu
def test_runs_are_equal_to_the_bit():
    tensors = make(2100, batch=1, channels=256, dtype=BFLOAT)
    first, second = (gradients("cuda", tensors, delta_softplus=True) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@gpu
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, where torch.compile begins
def test_compiled_by_torch():
    tensors = make(133, channels=64, dtype=BFLOAT)
    found = gradients("cuda", tensors, delta_softplus=True)
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda **t: selective_scan(**t, delta_softplus=True, backend="cuda"), backend="aot_eager", fullgraph=True
    )
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    y = compiled(**leaves)
    assert torch.equal(y, found["y"])
    y.sum().backward()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves.values())


@gpu
def test_second_derivatives_are_refused():
    x = make(20)["x"].requires_grad_()
    tensors = make(20) | {"x": x}
    (dx,) = torch.autograd.grad(selective_scan(**tensors, delta_softplus=True).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        dx.sum().backward()


@gpu
def test_more_elements_than_an_int32_counts():
    """Whole = two halves with a carried state (offsets beyond 2^31: mamba #884, #1015)."""
    length, channels = 2**20 + 3, 2**11
    if torch.cuda.mem_get_info()[0] < 40 * 2**30:
        pytest.skip("needs 40 GiB of free GPU memory")
    x = torch.randn(1, length, channels, device="cuda", dtype=BFLOAT)
    delta = torch.full_like(x, 0.01)
    A, B = -torch.ones(channels, 1, device="cuda"), torch.ones(1, length, 1, device="cuda", dtype=BFLOAT)
    whole, final = selective_scan(x, delta, A, B, B, return_final_state=True, backend="cuda")
    half, end = length // 2, None
    for now in (slice(half), slice(half, None)):
        y, end = selective_scan(
            x[:, now],
            delta[:, now],
            A,
            B[:, now],
            B[:, now],
            initial_state=end,
            return_final_state=True,
            backend="cuda",
        )
        torch.testing.assert_close(y, whole[:, now], rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(end, final, rtol=1e-5, atol=1e-5)


@gpu
@pytest.mark.parametrize("dtype", [SINGLE, HALF, BFLOAT])
@pytest.mark.parametrize(("batch", "channels", "states", "groups"), [(9, 40, 16, 1), (2, 6, 3, 2), (5, 300, 64, 3)])
def test_step(dtype, batch, channels, states, groups):
    tensors = make(1, batch=batch, channels=channels, states=states, groups=groups, dtype=dtype)
    tensors = {name: tensor[:, 0] if name in TIMED else tensor for name, tensor in tensors.items()}
    state = tensors.pop("initial_state")
    before = state.clone()
    found = selective_scan_step(**tensors, state=state, delta_softplus=True)
    wide = {name: tensor.double().cpu() for name, tensor in tensors.items()}
    wanted = selective_scan_step(**wide, state=state.double().cpu(), delta_softplus=True)
    assert torch.equal(state, before)
    for part, exact in zip(found, wanted, strict=True):
        assert float((part.double().cpu() - exact).norm() / exact.norm()) <= TOLERANCE[dtype]


@gpu
def test_step_in_a_cuda_graph():
    tensors = make(1, batch=3, dtype=BFLOAT)
    tensors = {name: tensor[:, 0] if name in TIMED else tensor for name, tensor in tensors.items()}
    state = tensors.pop("initial_state")
    y, after = selective_scan_step(**tensors, state=state, delta_softplus=True)  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y_again, after_again = selective_scan_step(**tensors, state=state, delta_softplus=True)
    graph.replay()
    assert torch.equal(y, y_again)
    assert torch.equal(after, after_again)
