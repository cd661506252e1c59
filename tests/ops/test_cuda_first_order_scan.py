"""The Triton kernels of `first_order_scan` against the definition in float64, for values and every gradient.

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

from ssm_kit.ops import first_order_scan, first_order_scan_step
from ssm_kit.ops.first_order_scan import cuda

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 5e-3, torch.float16: 1e-3}
tiny = (lambda test: test) if INTERPRETED else pytest.mark.gpu


def make(batch: int, length: int, channels: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Random arguments with |a| <= 1, drawn on the CPU."""
    generator = torch.Generator().manual_seed(0)
    a = 2 * torch.rand(batch, length, channels, generator=generator) - 1
    b = torch.randn(a.shape, generator=generator)
    state = torch.randn(batch, channels, generator=generator)
    return {"a": a.to(DEVICE, dtype), "b": b.to(DEVICE, dtype), "initial_state": state.to(DEVICE)}


def kernels(reverse: bool = False):
    """The kernels as a function of keyword tensors, also where the public function sees no GPU."""
    return lambda a, b, initial_state=None: cuda.scan(a, b, initial_state, reverse)


def compare(function, tensors: dict[str, Tensor], tolerance: float, reverse: bool = False) -> None:
    """‖found − expected‖ <= tolerance · ‖expected‖ for the states, the final state and every gradient."""
    exact = {name: tensor.double() for name, tensor in tensors.items()}
    expected = evaluate(
        lambda **t: first_order_scan(**t, reverse=reverse, return_final_state=True, backend="torch"), exact
    )
    found = evaluate(function, tensors)
    for name, wanted in expected.items():
        error = (found[name].double() - wanted).norm() / wanted.norm()
        assert error <= tolerance, f"{name}: relative error {error:.1e}"


def cut(monkeypatch, rows: int, vector: int, segments: int = 1, ahead: int = 2) -> None:
    """Let the kernels use this cut of a scan."""

    def plan(a: Tensor, gradient: bool) -> cuda.Plan:
        steps = -(-a.shape[1] // segments)
        segment_length = -(-steps // (rows * ahead)) * rows * ahead
        return cuda.Plan(rows, ahead, vector, -(-a.shape[1] // segment_length), segment_length)

    monkeypatch.setattr(cuda, "plan", plan)


@tiny
@pytest.mark.parametrize(("length", "segments", "reverse"), [(1, 1, True), (9, 3, False)])
def test_a_few_steps(length, segments, reverse, monkeypatch):
    cut(monkeypatch, rows=2, vector=1, segments=segments)
    tensors = {name: strided(tensor) for name, tensor in make(2, length, 3).items()}
    compare(kernels(reverse), tensors, 1e-6, reverse)


@tiny
def test_without_an_initial_state_and_more_channels_than_a_block(monkeypatch):
    cut(monkeypatch, rows=2, vector=1)
    tensors = make(1, 3, 33)
    del tensors["initial_state"]
    compare(kernels(), tensors, 1e-6)


@tiny
@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_a_product_of_decays_may_overflow_where_the_states_do_not(monkeypatch):
    cut(monkeypatch, rows=4, vector=1, segments=2)
    a, b = (torch.full((1, 44, 1), value, device=DEVICE) for value in (1e2, 0.0))
    b[:, -3:] = 1.0
    h, _ = cuda.scan(a, b, None, False)
    assert h[0, -4:, 0].tolist() == [0.0, 1.0, 101.0, 10101.0]


@tiny
def test_a_step():
    tensors = make(3, 1, 5)
    a, b, state = (tensors[name].squeeze(1) for name in ("a", "b", "initial_state"))
    torch.testing.assert_close(cuda.step(a, b, state), a * state + b, rtol=1e-6, atol=1e-6)


@pytest.mark.skipif(INTERPRETED, reason="this is the interpreted run")
def test_in_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not gpu", __file__]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "5 passed" in done.stdout, done.stdout[-1000:]


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED, reason="needs compiled kernels")
class TestOnAGPU:
    @pytest.mark.parametrize("dtype", TOLERANCE)
    @pytest.mark.parametrize("size", [(3, 17, 130), (1, 5000, 70), (2, 257, 64)])
    def test_equals_the_definition(self, size, dtype):
        def public(**tensors):
            return first_order_scan(**tensors, return_final_state=True, backend="cuda")

        compare(public, make(*size, dtype), TOLERANCE[dtype])

    @pytest.mark.parametrize(("rows", "ahead", "vector"), [(8, 3, 2), (16, 1, 2), (32, 1, 2), (16, 2, 2)])
    def test_every_cut(self, rows, ahead, vector, monkeypatch):
        cut(monkeypatch, rows, vector, segments=3, ahead=ahead)
        compare(kernels(True), make(2, 101, 130), 1e-6, reverse=True)

    def test_strides_and_a_repeated_call_do_not_matter(self):
        tensors = make(2, 65, 40)
        odd = {name: strided(tensor) for name, tensor in tensors.items()}
        rows = {name: tensor.repeat_interleave(2, 0)[::2] for name, tensor in tensors.items()}
        first, *others = (evaluate(kernels(), given) for given in (tensors, tensors, odd, rows))
        for other in others:
            for name, value in first.items():
                torch.testing.assert_close(other[name], value, rtol=0, atol=0)

    def test_mixed_dtypes(self):
        tensors = make(2, 33, 40)
        tensors["b"] = tensors["b"].bfloat16()
        h = first_order_scan(**tensors)
        assert h.dtype == torch.float32
        compare(kernels(), tensors, 5e-3)

    def test_step_by_step(self):
        tensors = make(3, 9, 300, torch.bfloat16)
        h, final = cuda.scan(*tensors.values(), False)
        state = tensors["initial_state"]
        for t in range(9):
            state = first_order_scan_step(tensors["a"][:, t], tensors["b"][:, t], state=state)
            torch.testing.assert_close(state.bfloat16(), h[:, t], rtol=1e-2, atol=1e-6)
        torch.testing.assert_close(state, final, rtol=1e-6, atol=1e-6)

    def test_compiled_and_captured(self):
        tensors = make(2, 65, 40)

        def double(a, b, initial_state):
            h, state = first_order_scan(a * 2, b, initial_state=initial_state, return_final_state=True)
            return h * 2, state

        expected = evaluate(double, tensors)
        found = evaluate(torch.compile(double, backend="aot_eager", fullgraph=True), tensors)
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], rtol=0, atol=0)
        graph = torch.cuda.CUDAGraph()
        with torch.no_grad(), torch.cuda.graph(graph):
            h, _ = double(**tensors)
        tensors["b"].neg_(), tensors["initial_state"].neg_()
        graph.replay()
        torch.testing.assert_close(h, -expected["output 0"], rtol=0, atol=0)

    def test_a_second_derivative_is_refused(self):
        a = torch.rand(1, 4, 2, device="cuda", requires_grad=True)
        with pytest.raises(RuntimeError, match="first derivatives only"):
            torch.autograd.grad(first_order_scan(a, a).sum(), a, create_graph=True)

    def test_complex_numbers_and_float64_are_left_to_torch(self):
        a = torch.rand(1, 4, 2, device="cuda")
        for other, name in ((a + 0j, "complex64"), (a.double(), "float64")):
            with pytest.raises(NotImplementedError, match=f"float16; got {name}"):
                first_order_scan(a, other, backend="cuda")

    def test_more_elements_than_an_int32_counts(self):
        a = torch.full((1, 2**19 + 3, 2**12 + 64), 0.5, device="cuda", dtype=torch.bfloat16)
        b = torch.randn_like(a)
        h = first_order_scan(a, b)
        end = first_order_scan(a[:, -200:], b[:, -200:], backend="torch")
        torch.testing.assert_close(h[:, -99:], end[:, -99:], rtol=1e-2, atol=1e-2)
