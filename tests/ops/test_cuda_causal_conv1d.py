"""The Triton kernels of `causal_conv1d` against the definition in float64, for values and every gradient.

The tiny cases run on the CPU too, in Triton's interpreter, in a process of its own (a kernel is interpreted or compiled
from the moment it is decorated). The others need a GPU.
"""

import os
import subprocess
import sys

import pytest
import torch
from oracles import evaluate, strided
from torch import Tensor

pytest.importorskip("triton", reason="the kernels need Triton")

from ssm_kit.ops import causal_conv1d, causal_conv1d_step
from ssm_kit.ops.causal_conv1d import cuda

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 5e-3, torch.float16: 1e-3}
tiny = (lambda test: test) if INTERPRETED else pytest.mark.gpu


def make(
    batch: int, length: int, channels: int, width: int = 4, dtype: torch.dtype = torch.float32, sequences: int = 0
) -> dict[str, Tensor]:
    """Random arguments, drawn on the CPU; the state in float32, as models keep it."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"x": (batch, length, channels), "weight": (channels, width), "bias": (channels,)}
    shapes["initial_state"] = (sequences or batch, width - 1, channels)
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {name: t.to(DEVICE, torch.float32 if name == "initial_state" else dtype) for name, t in tensors.items()}


def kernels(silu: bool = True, bounds: Tensor | None = None):
    """The kernels as a function of keyword tensors -> (y, state), also where the public function sees no GPU."""

    def run(x, weight, bias=None, initial_state=None):
        y = cuda.scan(x, weight, bias, initial_state, bounds, silu)
        return y, cuda.final_state(x, initial_state, bounds, weight.shape[1])

    return run


def compare(
    tensors: dict[str, Tensor], tolerance: float, *, silu: bool = True, bounds: Tensor | None = None, function=None
) -> None:
    """‖found − expected‖ <= tolerance · ‖expected‖ for y, the final state and every gradient."""
    options = {"activation": "silu" if silu else None, "cu_seqlens": bounds, "return_final_state": True}
    exact = {name: tensor.double() for name, tensor in tensors.items()}
    expected = evaluate(lambda **t: causal_conv1d(**t, **options, backend="torch"), exact)
    found = evaluate(function or kernels(silu, bounds), tensors)
    for name, wanted in expected.items():
        if wanted.numel():  # a single tap has an empty state
            error = (found[name].double() - wanted).norm() / wanted.norm()
            assert error <= tolerance, f"{name}: relative error {error:.1e}"


def cut(monkeypatch, rows: int, block: int, warps: int, segment_length: int) -> None:
    monkeypatch.setattr(cuda, "plan", lambda x, gradient: cuda.Plan(rows, block, warps, segment_length))


@tiny
@pytest.mark.parametrize(("width", "length", "silu"), [(4, 5, True), (1, 2, False)])
def test_a_few_steps(width, length, silu, monkeypatch):
    cut(monkeypatch, rows=2, block=8, warps=1, segment_length=4)
    tensors = {name: strided(tensor) for name, tensor in make(2, length, 9, width).items()}
    compare(tensors, 1e-6, silu=silu)


@tiny
def test_without_bias_and_state(monkeypatch):
    cut(monkeypatch, rows=2, block=8, warps=1, segment_length=4)
    tensors = make(1, 5, 3)
    compare({"x": tensors["x"], "weight": tensors["weight"]}, 1e-6)


@tiny
def test_packed_sequences(monkeypatch):
    """Sequences shorter than the taps, and bounds inside, at the edges and across segments."""
    cut(monkeypatch, rows=2, block=8, warps=1, segment_length=4)
    bounds = torch.tensor([0, 1, 4, 6, 11], device=DEVICE)
    compare(make(1, 11, 3, sequences=4), 1e-6, bounds=bounds)


@tiny
@pytest.mark.parametrize("width", [1, 2, 4])
def test_a_step(width):
    tensors = make(2, 1, 5, width)
    x, weight, bias, state = tensors.values()
    expected = causal_conv1d(**tensors, activation="silu", return_final_state=True, backend="torch")
    y, following = cuda.step(x[:, 0], weight, bias, state, True)
    torch.testing.assert_close(y, expected[0][:, 0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(following, expected[1], rtol=0, atol=0)


@pytest.mark.skipif(INTERPRETED, reason="this is the interpreted run")
def test_in_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not gpu", __file__]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "8 passed" in done.stdout, done.stdout[-1000:]


def test_many_taps_are_left_to_torch():
    wide = torch.zeros(3, cuda.TAPS + 1)
    assert cuda.unsupported(torch.zeros(1, 2, 3), wide, None, None) == "the kernels hold at most 16 taps; got 17"


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED, reason="needs compiled kernels")
class TestOnAGPU:
    @pytest.mark.parametrize("dtype", TOLERANCE)
    @pytest.mark.parametrize(("size", "width"), [((3, 300, 130), 4), ((2, 513, 64), 2)])
    def test_equals_the_definition(self, size, width, dtype):
        def public(**tensors):
            return causal_conv1d(**tensors, activation="silu", return_final_state=True, backend="cuda")

        compare(make(*size, width, dtype), TOLERANCE[dtype], function=public)

    @pytest.mark.parametrize("dtype", TOLERANCE)
    def test_packed_sequences_of_many_lengths(self, dtype):
        bounds = torch.tensor([0, 1, 3, 300, 301, 700], device="cuda", dtype=torch.int32)

        def public(**tensors):
            options = {"activation": "silu", "return_final_state": True, "cu_seqlens": bounds}
            return causal_conv1d(**tensors, **options, backend="cuda")

        compare(make(1, 700, 66, dtype=dtype, sequences=5), TOLERANCE[dtype], bounds=bounds, function=public)

    @pytest.mark.parametrize(("rows", "block", "warps"), [(4, 128, 1), (2, 64, 1), (8, 256, 2)])
    def test_every_cut(self, rows, block, warps, monkeypatch):
        for segment_length in (128, 512):
            cut(monkeypatch, rows, block, warps, segment_length)
            compare(make(2, 601, 130), 2e-6)

    def test_strides_and_a_repeated_call_do_not_matter(self):
        tensors = make(2, 65, 40)
        odd = {name: strided(tensor) for name, tensor in tensors.items()}
        half = tensors | {"x": torch.cat([tensors["x"]] * 2, dim=-1)[..., :40]}  # as a projection leaves it
        first, *others = (evaluate(kernels(), given) for given in (tensors, tensors, odd, half))
        for other in others:
            for name, value in first.items():
                torch.testing.assert_close(other[name], value, rtol=0, atol=0)

    def test_step_by_step(self):
        tensors = make(3, 9, 300, dtype=torch.bfloat16)
        y, final = causal_conv1d(**tensors, activation="silu", return_final_state=True)
        state = tensors["initial_state"]
        for t in range(9):
            given = {"weight": tensors["weight"], "bias": tensors["bias"], "activation": "silu"}
            y_t, state = causal_conv1d_step(tensors["x"][:, t], state=state, **given)
            torch.testing.assert_close(y_t, y[:, t], rtol=1e-2, atol=1e-5)
        torch.testing.assert_close(state, final, rtol=0, atol=0)

    def test_compiled_and_captured(self):
        tensors = make(2, 65, 40)

        def double(x, weight, bias, initial_state):
            return 2 * causal_conv1d(x * 2, weight, bias=bias, initial_state=initial_state, activation="silu")

        expected = evaluate(double, tensors)
        found = evaluate(torch.compile(double, backend="aot_eager", fullgraph=True), tensors)
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], rtol=0, atol=0)
        graph = torch.cuda.CUDAGraph()
        with torch.no_grad(), torch.cuda.graph(graph):
            y = double(**tensors)
        y.fill_(torch.nan)
        graph.replay()
        torch.testing.assert_close(y, expected["output 0"], rtol=0, atol=0)

    def test_a_second_derivative_is_refused(self):
        tensors = make(1, 4, 2)
        x = tensors.pop("x").requires_grad_()
        with pytest.raises(RuntimeError, match="first derivatives only"):
            torch.autograd.grad(causal_conv1d(x, **tensors).sum(), x, create_graph=True)

    def test_more_elements_than_an_int32_counts(self):
        x = torch.randn(1, 2**19 + 3, 2**12 + 64, device="cuda", dtype=torch.bfloat16)
        weight = torch.randn(x.shape[-1], 4, device="cuda")
        y = causal_conv1d(x, weight)
        end = causal_conv1d(x[:, -100:], weight, backend="torch")
        torch.testing.assert_close(y[:, -90:], end[:, -90:], rtol=1e-2, atol=1e-2)
