"""`ssd` on a GPU against the definition in float64; and its kernels in Triton's interpreter, which needs no GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from oracles import evaluate, strided
from test_ssd import at, make
from torch import Tensor

from ssm_kit.ops import ssd, ssd_step

gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 5e-3, torch.float16: 5e-3}


def on_gpu(tensors: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """x, B, C, z in the dtype, the rest in float32, as models hold them."""
    wide = ("delta", "A", "D", "delta_bias", "initial_state")
    return {name: t.cuda().to(torch.float32 if name in wide else dtype) for name, t in tensors.items()}


def kernels(**options):
    options = {"backend": "cuda", "return_final_state": True} | options
    return lambda **tensors: ssd(**tensors, **options)


def definition(**options):
    """The chunked form in float64 on the GPU, which tests/ops/test_ssd.py holds to the definition at 1e-12."""
    options = {"backend": "torch", "return_final_state": True} | options
    return lambda **tensors: ssd(**tensors, **options)


def assert_right(tensors: dict[str, Tensor], weights: tuple[float, float] = (1.0, 1.0), **options) -> None:
    """‖found - wanted‖ <= tolerance ‖wanted‖ for outputs and all gradients; wanted from the same values in float64.

    The same gradients arrive, too: the kernels get that of y in y's dtype, so it is rounded for the definition. (The
    gradient of A is a sum that cancels: rounding what arrives changes it by up to 1.7 % here.) What underflows in
    float32 counts as 0.
    """
    dtypes = tensors["x"].dtype, torch.float32

    def weighed(function):
        def outputs(**t):
            weighed = [weight * output for weight, output in zip(weights, function(**t), strict=True)]
            for output, dtype in zip(weighed, dtypes, strict=True):
                output.register_hook(lambda gradient, dtype=dtype: gradient.to(dtype).to(gradient.dtype))
            return tuple(weighed)

        return outputs

    exact = {name: tensor.double() for name, tensor in tensors.items()}
    found, wanted = evaluate(weighed(kernels(**options)), tensors), evaluate(weighed(definition(**options)), exact)
    bound = TOLERANCE[tensors["x"].dtype]
    errors = {name: float((found[name].double() - value).norm()) for name, value in wanted.items()}
    limits = {name: bound * float(value.norm()) + 1e-30 for name, value in wanted.items()}
    wrong = {name: (error, limits[name]) for name, error in errors.items() if not error <= limits[name]}
    assert not wrong  # a NaN is not <= either


def poison() -> None:
    """Fill the allocator's free memory with NaN, so that an entry which no kernel writes or should read shows."""
    filled = torch.full((2**26,), float("nan"), device="cuda")
    del filled


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("length", [1, 31, 32, 33, 63, 64, 65, 101, 256, 389])
class TestShapes:
    pytestmark = gpu

    def test_lengths(self, length, dtype):
        poison()
        assert_right(on_gpu(make(length), dtype), delta_softplus=length % 2 == 0)


class TestKernels:
    pytestmark = gpu

    @pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
    @pytest.mark.parametrize(
        "sizes", [{"length": 70}, {"length": 2000, "batch": 1, "width": 64, "states": 128}], ids=str
    )
    def test_states_at_the_ends_alone(self, sizes, dtype):
        """What sequence-parallel ranks tell each other: the last state, and the gradient of the first."""
        from ssm_kit.ops.ssd import cuda

        tensors = on_gpu(make(**sizes), dtype)
        x, delta, A, B, C, z = (tensors[name] for name in ("x", "delta", "A", "B", "C", "z"))
        steps = {"delta_bias": tensors["delta_bias"], "delta_softplus": True}
        end, through = cuda.boundary(x, delta, A, B, **steps)
        exact = {name: tensor.double() for name, tensor in tensors.items()}
        exact["initial_state"].requires_grad_()
        y, state = definition(delta_softplus=True)(**exact)
        dy = torch.randn_like(y).to(dtype)
        (wanted,) = torch.autograd.grad(y, [exact["initial_state"]], dy.double())
        found = {"state": end + through * tensors["initial_state"]}
        found["start"] = cuda.start_gradient(dy, delta, A, C, z=z, **steps)
        for name, exactly in {"state": state, "start": wanted}.items():
            assert (found[name] - exactly).norm() <= TOLERANCE[dtype] * exactly.norm(), name

    @pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
    @pytest.mark.parametrize(
        ("batch", "heads", "groups", "width", "states"),
        [
            (1, 1, 1, 1, 1),
            (2, 4, 2, 64, 128),
            (1, 6, 3, 70, 100),
            (3, 2, 1, 128, 16),
            (1, 2, 1, 16, 256),
            (2, 9, 3, 5, 37),
        ],
    )
    def test_sizes(self, batch, heads, groups, width, states, dtype):
        poison()
        tensors = make(150, batch=batch, heads=heads, groups=groups, width=width, states=states, wide_skip=heads == 4)
        assert_right(on_gpu(tensors, dtype))

    @pytest.mark.parametrize(
        "left_out", [("D",), ("z",), ("delta_bias",), ("initial_state",), ("D", "z", "initial_state")]
    )
    def test_options(self, left_out):
        tensors = {name: t for name, t in make(130).items() if name not in left_out}
        assert_right(on_gpu(tensors, torch.float32), delta_softplus=True)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    @pytest.mark.parametrize("length", [2048, 2111])
    def test_sequences_cut_into_segments(self, length, dtype):
        """Few heads: the kernels cut time into segments to fill the GPU."""
        tensors = make(length, batch=1, heads=2, groups=1, width=16, states=16)
        tensors["delta"] = tensors["delta"] * 0.01
        assert_right(on_gpu(tensors, dtype))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    @pytest.mark.parametrize("bounds", [[0, 41], [0, 1, 64, 65, 200], [0, 32, 64, 65, 320, 321, 1500]])
    def test_packed_sequences(self, bounds, dtype):
        poison()
        tensors = make(bounds[-1], batch=1)
        tensors["initial_state"] = make(1, batch=len(bounds) - 1)["initial_state"]
        assert_right(on_gpu(tensors, dtype), cu_seqlens=torch.tensor(bounds, device="cuda"), delta_softplus=True)

    @pytest.mark.parametrize("scale", [1e-3, 0.1, 1.0, 10.0, 1e3])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    def test_small_and_large_steps(self, scale, dtype):
        """Chunks that keep their states, that forget, and that forget too much for decays as products."""
        tensors = make(200)
        tensors["delta"] = tensors["delta"] * scale
        assert_right(on_gpu({n: t for n, t in tensors.items() if n != "delta_bias"}, dtype))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    def test_small_decays_between_huge_ones(self, dtype):
        """Running totals of 10⁵ leave float32 two digits of a decay near 1: float64, or steps held at 2^-150."""
        tensors = make(200)
        tensors["delta"][:, ::8], tensors["delta"][:, 1::8] = 2e3, 1e-3
        assert_right(on_gpu({n: t for n, t in tensors.items() if n != "delta_bias"}, dtype))

    def test_zero_steps_keep_the_state(self):
        tensors = on_gpu(make(100), torch.float32)
        tensors |= {"delta": torch.zeros_like(tensors["delta"]), "delta_bias": torch.zeros_like(tensors["delta_bias"])}
        torch.testing.assert_close(kernels()(**tensors)[1], tensors["initial_state"], rtol=0, atol=0)
        assert_right(tensors)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    def test_strided_and_expanded_arguments(self, dtype):
        tensors = on_gpu(make(70), dtype)
        odd = {name: strided(tensor) for name, tensor in tensors.items()}
        odd["B"] = tensors["B"][:1].expand(2, -1, -1, -1)
        plain = {name: tensor.contiguous() for name, tensor in odd.items()}
        for found, wanted in zip(evaluate(kernels(), odd).values(), evaluate(kernels(), plain).values(), strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=0)

    def test_slices_of_one_projection_are_read_in_place(self):
        """x, B and C as Mamba-2 cuts them out of one tensor (batch, time, channels)."""
        joint = torch.randn(2, 90, 4 * 16 + 2 * 2 * 8, device="cuda")
        x, B, C = joint.split([64, 16, 16], dim=-1)
        rest = {n: t for n, t in on_gpu(make(90, heads=4), torch.float32).items() if n in ("delta", "A")}
        tensors = {"x": x.unflatten(-1, (4, 16)), "B": B.unflatten(-1, (2, 8)), "C": C.unflatten(-1, (2, 8))} | rest
        assert_right(tensors)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
    def test_small_tiles_of_gpus_before_ampere(self, dtype, monkeypatch):
        from ssm_kit.ops.ssd import _plan

        monkeypatch.setattr(_plan, "capability", lambda device: (7, 5))
        assert_right(on_gpu(make(150, width=30, states=40), dtype), delta_softplus=True)

    @pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
    def test_full_tiles_without_the_copy_engine(self, dtype, monkeypatch):
        from ssm_kit.ops.ssd import _plan

        monkeypatch.setattr(_plan, "has_copy_engine", lambda x: False)
        assert_right(on_gpu(make(128, width=64, states=128), dtype))

    @pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
    def test_full_tiles_by_the_copy_engine(self, dtype):
        assert_right(on_gpu(make(256, heads=4, width=64, states=128), dtype))

    @pytest.mark.parametrize("left_out", ["z", "initial_state"])
    def test_half_precision_at_the_size_of_a_model(self, left_out):
        """Every gradient to 0.5 %, those of A, D and delta_bias too."""
        tensors = make(1024, heads=64, groups=1, width=64, states=128, dtype=torch.float32)
        tensors["delta"], tensors["delta_bias"] = tensors["delta"] * 0.05, tensors["delta_bias"] * 0.05
        del tensors[left_out]
        assert_right(on_gpu(tensors, torch.bfloat16))

    @pytest.mark.parametrize(("dtype", "width", "states"), [
        (torch.bfloat16, 64, 128), (torch.bfloat16, 20, 37), (torch.float32, 64, 128), (torch.float32, 3, 5),
        (torch.float32, 5, 37),
    ], ids=str)  # fmt: skip
    def test_the_same_bits_every_time(self, dtype, width, states):
        tensors = on_gpu(make(700, heads=8, width=width, states=states), dtype)
        first, *others = (evaluate(kernels(), tensors) for _ in range(4))
        for other in others:
            for name, value in first.items():
                torch.testing.assert_close(other[name], value, rtol=0, atol=0)

    @pytest.mark.parametrize("weights", [(0.0, 1.0), (1.0, 0.0)])
    def test_gradients_of_one_output_alone(self, weights):
        assert_right(on_gpu(make(80), torch.float32), weights)

    def test_second_derivatives_are_refused(self):
        tensors = on_gpu(make(5), torch.float32)
        x = tensors.pop("x").requires_grad_()
        with pytest.raises(RuntimeError, match="first derivatives only"):
            torch.autograd.grad(ssd(x, **tensors, backend="cuda").square().sum(), x, create_graph=True)

    @pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own, inside inductor
    def test_compiled_and_under_autocast(self):
        tensors = on_gpu(make(100), torch.bfloat16)
        function = kernels(delta_softplus=True)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            wanted, found = evaluate(function, tensors), evaluate(torch.compile(function, fullgraph=True), tensors)
        for name in wanted:
            torch.testing.assert_close(found[name], wanted[name], rtol=1e-2, atol=1e-2)

    def test_operator_registration(self):
        from ssm_kit.ops.ssd import cuda

        t = {name: value.requires_grad_() for name, value in on_gpu(make(40), torch.float32).items()}
        arguments = [t[n] for n in ("x", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")]
        torch.library.opcheck(cuda._forward, (*arguments, None, True, True))

    def test_captured_in_a_graph(self):
        tensors = on_gpu(make(300), torch.bfloat16)
        function = kernels(delta_softplus=True)
        wanted = function(**tensors)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = function(**tensors)
        for output in found:
            output.fill_(float("nan"))
        graph.replay()
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)

    @pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
    @pytest.mark.parametrize(("width", "states", "wide"), [(3, 5, False), (64, 128, True), (70, 256, False)])
    def test_steps(self, width, states, wide, dtype):
        tensors = on_gpu(make(1, width=width, states=states, wide_skip=wide), dtype)
        now, state = at(tensors, 0), tensors["initial_state"]
        before = state.clone()
        y, after = ssd_step(**now, state=state, delta_softplus=True)
        exact = {name: tensor.double().cpu() for name, tensor in now.items()}  # on a GPU float64 warns: no kernel
        exact_state = state.double().cpu()
        wanted_y, wanted = (t.cuda() for t in ssd_step(**exact, state=exact_state, delta_softplus=True))
        assert y.dtype == dtype
        assert after.dtype == torch.float32
        assert float((y - wanted_y).norm()) <= TOLERANCE[dtype] * float(wanted_y.norm())
        assert float((after - wanted).norm()) <= 1e-5 * float(wanted.norm())
        torch.testing.assert_close(state, before, rtol=0, atol=0)

    def test_small_states_in_single_precision(self):
        """Where ptxas lost registers (see `_plan.plan_of`), some shapes were wrong: many shapes, many times."""
        for width, states in [(5, 37), (16, 64), (3, 100), (30, 16), (3, 5), (64, 13)] * 3:
            poison()
            assert_right(on_gpu(make(150, heads=9, groups=3, width=width, states=states), torch.float32))

    def test_beyond_2_31_elements(self):
        """x of 2.2·10⁹ entries: the last steps equal the same steps run alone from the state before them."""
        generator = torch.Generator("cuda").manual_seed(0)
        length, heads, width, states, last = 2**17 + 64, 256, 64, 16, 128
        x = torch.empty(1, length, heads, width, device="cuda", dtype=torch.bfloat16).normal_(generator=generator)
        delta = torch.rand(1, length, heads, device="cuda", generator=generator) * 0.1
        B, C = (torch.randn(1, length, 1, states, device="cuda", dtype=torch.bfloat16) for _ in "BC")
        A = -torch.rand(heads, device="cuda")
        with torch.no_grad():
            y, final = kernels()(x=x, delta=delta, A=A, B=B, C=C)
            cut = length - last
            first = [t[:, :cut] for t in (x, delta)]
            state = ssd(*first, A, B[:, :cut], C[:, :cut], return_final_state=True)[1]
            rest = [t[:, cut:].contiguous() for t in (x, delta)]
            tail, end = ssd(*rest, A, B[:, cut:].contiguous(), C[:, cut:].contiguous(), initial_state=state,
                            return_final_state=True)  # fmt: skip
        assert float((y[:, cut:].float() - tail.float()).norm()) <= 5e-3 * float(tail.float().norm())
        assert float((final - end).norm()) <= 5e-3 * float(end.norm())


class TestPlans:
    @pytest.mark.parametrize(("width", "states"), [(3, 5), (5, 37), (64, 128), (128, 256)])
    def test_no_product_of_single_precision_has_the_64_rows_of_wgmma(self, width, states):
        """Which ptxas compiles wrongly, see `_plan.plan_of`. Products have as many rows as a chunk or a state."""
        pytest.importorskip("triton")
        from ssm_kit.ops.ssd import _plan

        plan = _plan.plan_of(torch.zeros(1, 100, 2, width), torch.zeros(1, 100, 1, states), None)
        assert max(plan.chunk, plan.block_p) < 64

    @pytest.mark.parametrize(("width", "states", "wanted"), [(16, 16, torch.bfloat16), (15, 16, torch.float32),
                                                             (16, 5, torch.float32)])  # fmt: skip
    def test_half_precision_only_where_it_gains(self, width, states, wanted):
        pytest.importorskip("triton")
        from ssm_kit.ops.ssd import _plan

        x, B = torch.zeros(1, 1, 1, width, dtype=torch.bfloat16), torch.zeros(1, 1, 1, states, dtype=torch.bfloat16)
        assert _plan.compute_dtype(x, B, B) == wanted
        assert _plan.compute_dtype(x, B, B.half()) == torch.float32


INTERPRETED = """
import torch
torch.set_num_threads(1)
from test_cuda_ssd import interpreted
interpreted()
"""


def interpreted() -> None:
    """Every kernel on the CPU (the interpreter's bfloat16 products are wrong in all versions tried: none here)."""
    from ssm_kit.ops.ssd import _launch, _plan

    def compare(tensors: dict[str, Tensor], bounds: list[int] | None, softplus: bool, limit: float = 1e-5) -> None:
        cu_seqlens = None if bounds is None else torch.tensor(bounds)
        exact = {name: t.double().requires_grad_() for name, t in tensors.items()}
        options = {"cu_seqlens": cu_seqlens, "delta_softplus": softplus, "return_final_state": True}
        y, state = ssd(**exact, **options, backend="torch")
        dy, dstate = torch.randn_like(y).to(tensors["x"].dtype), torch.randn_like(state)
        by_outputs = dy.double(), dstate
        gradients = torch.autograd.grad((y, state), list(exact.values()), by_outputs, retain_graph=True)
        wanted = dict(zip(exact, gradients, strict=True))
        absent = dict.fromkeys(_launch.Inputs._fields) | {"cu_seqlens": cu_seqlens}
        inputs = _launch.Inputs(**absent | tensors)
        found_y, ungated, found_state = _launch.forward(inputs, softplus, "z" in tensors)
        gradients = _launch.backward(inputs, softplus, dy, dstate.float(), ungated)
        found = dict(zip(_launch.Inputs._fields, gradients, strict=False)) | {"y": found_y, "state": found_state}
        wanted |= {"y": y.detach(), "state": state.detach(), "end": state.detach()}
        found["end"] = _launch.end(inputs, softplus)
        if "initial_state" in tensors:
            (wanted["start"],) = torch.autograd.grad(y, [exact["initial_state"]], dy.double())
            gated = dy * torch.nn.functional.silu(tensors["z"]) if "z" in tensors else dy
            found["start"] = _launch.start_gradient(inputs._replace(x=gated, B=inputs.C, initial_state=None), softplus)
        for name, expected in wanted.items():
            error = float((found[name].view_as(expected) - expected).norm() / expected.norm())
            assert error <= limit, (name, error)

    def halved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {n: t.half() if n in ("x", "B", "C", "z") else t for n, t in tensors.items()}

    plain = make(37, batch=1, heads=4, dtype=torch.float32)
    compare({n: t for n, t in plain.items() if n not in ("D", "z", "initial_state")}, None, softplus=True)
    half = make(70, batch=1, heads=4, width=16, states=20, dtype=torch.float32)
    compare(halved(half), None, softplus=True, limit=5e-3)
    _plan.has_copy_engine = lambda x: True  # the interpreter knows descriptors
    compare(make(64, batch=1, heads=2, groups=1, width=16, states=16, dtype=torch.float32), None, softplus=False)
    _plan.Plan.cut = lambda self, processors: (2, 2)  # type: ignore[method-assign]
    packed = make(70, batch=1, heads=2, dtype=torch.float32, wide_skip=True)
    packed["initial_state"] = make(1, batch=2, heads=2, dtype=torch.float32)["initial_state"]
    compare(packed, [0, 33, 70], softplus=False)
    packed = make(140, batch=1, heads=4, width=16, states=20, dtype=torch.float32)
    packed["initial_state"] = make(1, batch=2, heads=4, width=16, states=20, dtype=torch.float32)["initial_state"]
    for name in "BC":  # chunks and groups whose units differ
        packed[name][:, 97:] *= 4
        packed[name][:, :, 1] /= 8
    compare(halved(packed), [0, 33, 140], softplus=False, limit=5e-3)
    now, state = at(plain, 0), plain["initial_state"]
    order = (now[name] for name in ("x", "delta", "A", "B", "C"))
    found = _launch.step(*order, state, now["D"], now["z"], now["delta_bias"], True)
    for output, expected in zip(found, ssd_step(**now, state=state, delta_softplus=True), strict=True):
        torch.testing.assert_close(output, expected)


def test_kernels_in_the_interpreter():
    pytest.importorskip("triton")
    folder = Path(__file__).parent
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": f"{folder}{os.pathsep}{folder.parents[1]}"}
    done = subprocess.run([sys.executable, "-c", INTERPRETED], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
