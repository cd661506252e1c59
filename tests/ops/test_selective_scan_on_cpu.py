"""The CUDA C++ kernels of the selective scan, run on a CPU: see cuda_on_cpu.h. What a GPU adds, is tested on one."""

from collections.abc import Iterator

import cuda_on_cpu
import pytest
import torch
from torch import Tensor

from ssm_kit.ops import _gpu, _nvrtc, selective_scan, selective_scan_step
from ssm_kit.ops.selective_scan import _launch, cuda

SINGLE, HALF, BFLOAT = torch.float32, torch.float16, torch.bfloat16
LIMIT = {SINGLE: 2e-6, HALF: 5e-3, BFLOAT: 5e-3}
TIMED = ("x", "delta", "B", "C", "z")

pytestmark = pytest.mark.skipif(not cuda_on_cpu.available(), reason="needs g++ with _Float16, on Linux")


@pytest.fixture(autouse=True, scope="module")
def _on_cpu() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_nvrtc, "launch", cuda_on_cpu.launch)
        patch.setattr(_gpu, "processors", lambda device: 8)
        for operator in (cuda._forward, cuda._backward):
            operator.register_kernel("cpu", operator._init_fn)
        yield


def make(
    length: int, channels: int, states: int, dtype: torch.dtype, *, batch: int = 2, groups: int = 1
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    wide, inputs = (batch, length, channels), (batch, length, groups, states)
    tensors = {"x": noise(*wide), "delta": noise(*wide) - 1, "A": -noise(channels, states).exp(), "B": noise(*inputs)}
    tensors |= {"C": noise(*inputs), "D": noise(channels), "z": noise(*wide), "delta_bias": noise(channels)}
    tensors["initial_state"] = noise(batch, channels, states)
    return {name: tensor.to(dtype) if name in TIMED else tensor for name, tensor in tensors.items()}


def evaluate(function, tensors: dict[str, Tensor], **options) -> dict[str, Tensor]:
    """y, the final state, and the gradient of every tensor through both, weighed by fixed noise."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    outputs = function(**leaves, **options)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(o.shape, generator=generator).to(o.dtype) for o in outputs]
    found = torch.autograd.grad(outputs, list(leaves.values()), weights)
    return {"y": outputs[0].detach(), "state": outputs[1].detach(), **dict(zip(leaves, found, strict=True))}


def kernels(*, D=None, z=None, delta_bias=None, delta_softplus=True, initial_state=None, cu_seqlens=None, **tensors):
    return cuda.scan(
        **tensors, D=D, z=z, delta_bias=delta_bias, delta_softplus=delta_softplus, initial_state=initial_state,
        cu_seqlens=cu_seqlens,
    )  # fmt: skip


def definition(**options):
    return selective_scan(**{"delta_softplus": True} | options, return_final_state=True)


def assert_right(tensors: dict[str, Tensor], dtype: torch.dtype, **options) -> None:
    found = evaluate(kernels, tensors, **options)
    exact = evaluate(definition, {name: tensor.double() for name, tensor in tensors.items()}, **options)
    for name, wanted in exact.items():
        error = float((found[name].double() - wanted).norm() / wanted.norm())
        assert error <= LIMIT[dtype], f"{name}: relative error {error:.1e}"


@pytest.mark.parametrize("length", [1, 16, 37, 1100])
def test_lengths(length):
    """The longest is cut into segments, of which the last is shorter."""
    assert_right(make(length, 16, 16, SINGLE, batch=1), SINGLE)


@pytest.mark.parametrize(("dtype", "channels", "states", "groups"), [(HALF, 10, 3, 2), (BFLOAT, 72, 32, 3)])
def test_dtypes_groups_and_odd_sizes(dtype, channels, states, groups):
    assert_right(make(35, channels, states, dtype, groups=groups), dtype)


def test_packed_sequences():
    tensors = make(70, 16, 16, SINGLE, batch=1) | {"initial_state": make(1, 16, 16, SINGLE, batch=3)["initial_state"]}
    assert_right(tensors, SINGLE, cu_seqlens=torch.tensor([0, 1, 33, 70]))


def test_without_gate_skip_or_state():
    tensors = {n: t for n, t in make(20, 8, 16, SINGLE).items() if n not in ("z", "D", "delta_bias", "initial_state")}
    tensors["delta"] = tensors["delta"].abs()
    assert_right(tensors, SINGLE, delta_softplus=False)


@pytest.mark.parametrize(
    ("dtype", "channels", "states", "batch"),
    [(SINGLE, 20, 16, 5), (BFLOAT, 8, 5, 3), (HALF, 6, 40, 1), (SINGLE, 3, 16, 210)],
)
def test_step(dtype, channels, states, batch):
    tensors = make(1, channels, states, dtype, batch=batch)
    now = {name: tensor[:, 0] if name in TIMED else tensor for name, tensor in tensors.items()}
    state = now.pop("initial_state")
    exact = {name: tensor.double() for name, tensor in now.items()}
    wanted = selective_scan_step(**exact, state=state.double(), delta_softplus=True)
    order = [now[name] for name in ("x", "delta", "A", "B", "C")]
    found = cuda.step(*order, state, now["D"], now["z"], now["delta_bias"], True)
    for output, expected in zip(found, wanted, strict=True):
        assert (output - expected).norm() <= LIMIT[dtype] * expected.norm()


@pytest.mark.parametrize(("batch", "length"), [(2, 40), (1, 1100)])
def test_states_at_the_ends_alone(batch, length):
    """What ranks of a sequence in pieces tell each other."""
    tensors = make(length, 16, 16, SINGLE, batch=batch)
    x, delta, A, B, C, z, start = (tensors[name] for name in ("x", "delta", "A", "B", "C", "z", "initial_state"))
    steps = {"delta_bias": tensors["delta_bias"], "delta_softplus": True}
    exact = {name: tensor.double() for name, tensor in tensors.items()}
    exact["initial_state"].requires_grad_()
    y, state = definition(**exact)
    end, through = cuda.boundary(x, delta, A, B, **steps)
    assert (end + through * start - state).norm() <= LIMIT[SINGLE] * state.norm()
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    (wanted,) = torch.autograd.grad(y, [exact["initial_state"]], dy.double())
    assert (cuda.start_gradient(dy, delta, A, C, z=z, **steps) - wanted).norm() <= LIMIT[SINGLE] * wanted.norm()


def test_an_exponential_by_multiplications(tmp_path):
    kernel = tmp_path / "evaluate.cu"
    kernel.write_text(
        'extern "C" __global__ void evaluate(const float* x, float* y, i64 count) {'
        "for (i64 i = threadIdx.x; i < count; i += THREADS) y[i] = ex2_multiplied(x[i]); }"
    )
    source = _launch.kernel_source("carry", SINGLE, 16, _launch.CARRY, SOFTPLUS=1, GATE=1, REVERSE=0, LAST=0)
    source = source._replace(kernel="evaluate", files=(*source.files[:1], kernel))
    x = torch.cat([torch.linspace(-126, 127, 100_001), torch.tensor([0.0, -1000, 1000])])
    y = torch.empty_like(x)
    cuda_on_cpu.launch(source, 1, _launch.CARRY.threads, x, y, len(x))
    exact = torch.exp2(x.double().clamp(-126, 127))
    assert float(((y.double() - exact) / exact).abs().max()) < 2e-7
    assert y[-3] == 1
