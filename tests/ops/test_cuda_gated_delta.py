"""The Triton kernels of the delta rules against the sequential definition in float64, for values and every gradient.

The small cases run twice: on a GPU, and, so that CI has them, on the CPU in Triton's interpreter, in a process of its
own (the interpreter is chosen when a kernel is decorated). The rest needs a GPU.
"""

import math
import os
import subprocess
import sys
from functools import partial

import pytest
import torch
from torch import Tensor

from ssm_kit.ops import (
    delta_rule,
    delta_rule_step,
    gated_delta_rule,
    gated_delta_rule_step,
    linear_attention,
    linear_attention_step,
)

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 5e-3, torch.float16: 5e-3}
OPERATORS = {"gated": gated_delta_rule, "delta": delta_rule, "linear": linear_attention}
small = (lambda function: function) if INTERPRETED else pytest.mark.gpu

pytest.importorskip("triton", reason="the kernels need Triton")


def inputs(
    operator: str = "gated", *, B=2, L=37, H=1, shared=2, K=8, V=5, S=None, gates=1.0, strongest=1.0,
    dtype=torch.float32, seed=0,
) -> dict[str, Tensor]:  # fmt: skip
    """Random tensors with keys of length one; decays, strengths and states in float32, as models keep them."""
    draw = partial(torch.randn, generator=torch.Generator(DEVICE).manual_seed(seed), device=DEVICE)
    tensors = {
        "q": draw(B, L, H, K).to(dtype),
        "k": torch.nn.functional.normalize(draw(B, L, H, K), dim=-1).to(dtype),
        "v": draw(B, L, H * shared, V).to(dtype),
        "g": -gates * torch.nn.functional.softplus(draw(B, L, H * shared)),
        "beta": strongest * torch.sigmoid(draw(B, L, H * shared)),
        "initial_state": draw(S or B, H * shared, K, V),
    }
    unused = {"gated": (), "delta": ("g",), "linear": ("beta",)}[operator]
    return {name: tensor for name, tensor in tensors.items() if name not in unused}


def kernels(q: Tensor, k: Tensor, v: Tensor, **options) -> tuple[Tensor, Tensor]:
    """The operators on the kernels, also where the public functions see no GPU."""
    from ssm_kit.ops.gated_delta import cuda

    given = {"g": None, "beta": None, "initial_state": None, "cu_seqlens": None, "scale": q.shape[-1] ** -0.5}
    return cuda.scan(q, k, v, *(given | {"qk_l2norm": False} | options).values())


def evaluate(function, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Outputs, final state, and the gradient of each tensor through both; weights that bfloat16 can hold."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    outputs = function(**leaves)
    generator = torch.Generator(DEVICE).manual_seed(1)
    weights = [torch.randn(x.shape, generator=generator, device=DEVICE).bfloat16().to(x.dtype) for x in outputs]
    gradients = torch.autograd.grad(outputs, list(leaves.values()), weights)
    named = dict(zip(("output", "state"), (x.detach() for x in outputs), strict=True))
    return named | {f"gradient of {name}": part for name, part in zip(leaves, gradients, strict=True)}


def compare(operator: str, tensors: dict[str, Tensor], tolerance: float, function=kernels, **options) -> None:
    """The kernels and the definition in float64 agree: |difference| <= tolerance · |expected|, as norms."""
    reference = partial(OPERATORS[operator], backend="reference", return_final_state=True, **options)
    expected = evaluate(reference, {name: tensor.double() for name, tensor in tensors.items()})
    found = evaluate(partial(function, **options), tensors)
    for name, wanted in expected.items():
        assert found[name].isfinite().all(), f"{name} is not finite"
        error = float((found[name].double() - wanted).norm() / wanted.norm())
        assert error <= tolerance, f"{name}: off by {error:.1e}"


# ---------------------------------------------------------------------------------------------------------------------
# Small cases, on a GPU and in the interpreter


@small
@pytest.mark.parametrize("operator", OPERATORS)
def test_small(operator):
    """Two chunks of 32, the second a tail; K and V that are no power of two; value heads that share a key."""
    compare(operator, inputs(operator, B=1, L=35, K=6, shared=2 if operator == "gated" else 1), 1e-5)


@small
def test_small_half_precision():
    """Chunks of 64, whose triangular system has four blocks."""
    compare("gated", inputs(B=1, L=66, shared=1, gates=0.1, dtype=torch.float16), 5e-3)


@small
def test_small_packed():
    """Sequences end to end, one of them a single step."""
    bounds = torch.tensor([0, 1, 34, 40], dtype=torch.int32, device=DEVICE)
    compare("gated", inputs(B=1, L=40, shared=1, S=3), 1e-5, cu_seqlens=bounds)


@small
def test_small_extremes():
    """A memory that is wiped out now and then, strengths of 0 and 2, queries and keys divided by their length."""
    tensors = inputs(B=1, shared=1, gates=0.1, strongest=2.0)
    tensors["g"][:, 3::7] = -math.inf
    tensors["beta"][:, ::5], tensors["beta"][:, 1::5] = 0.0, 2.0
    tensors["k"] *= 3
    compare("gated", tensors, 1e-5, qk_l2norm=True)


@small
def test_small_before_ampere(monkeypatch):
    """Chunks of 16, in which keys of more than 128 entries fit the shared memory of a T4."""
    from ssm_kit.ops.gated_delta import _launch

    monkeypatch.setattr(_launch, "capability", lambda device: (7, 5))
    compare("gated", inputs(B=1, L=20, K=130, shared=1), 1e-5)


@small
@pytest.mark.parametrize("unit", [False, True])
def test_small_step(unit):
    """The decoding step of the three operators."""
    from ssm_kit.ops.gated_delta import _arguments, cuda, reference

    tensors = {name: tensor[:, 0] for name, tensor in inputs(L=1).items()}
    tensors["state"] = torch.randn(2, 2, 8, 5, device=DEVICE)
    for unused in ((), ("g",), ("beta",)):
        given = {name: None if name in unused else tensors[name] for name in ("q", "k", "v", "g", "beta", "state")}
        found = cuda.step(*given.values(), 0.3, unit)
        exact = {name: None if tensor is None else tensor.double() for name, tensor in given.items()}
        exact |= {name: _arguments.spread(exact[name], 2, unit) for name in "qk"}
        exact["g"] = torch.zeros_like(tensors["g"]).double() if "g" in unused else exact["g"]
        for actual, expected in zip(found, reference.step(**exact, scale=0.3), strict=True):
            torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-6)


@small
def test_small_segments(monkeypatch):
    """A sequence whose parts walk at the same time, one of them empty for the shorter of the packed sequences."""
    from ssm_kit.ops.gated_delta import _launch

    monkeypatch.setattr(_launch, "_segments", lambda *sizes: 2)
    bounds = torch.tensor([0, 5, 74], dtype=torch.int32, device=DEVICE)
    compare("gated", inputs(B=1, L=74, shared=1, S=2, gates=0.1), 1e-5, cu_seqlens=bounds)


@pytest.mark.skipif(INTERPRETED, reason="this is the process that runs the interpreter")
def test_in_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "small", __file__]
    done = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, timeout=170
    )
    assert done.returncode == 0, done.stdout
    assert "10 passed" in done.stdout, done.stdout


# ---------------------------------------------------------------------------------------------------------------------
# On a GPU


def public(operator: str, **tensors: Tensor) -> tuple[Tensor, Tensor]:
    return OPERATORS[operator](**tensors, backend="cuda", return_final_state=True)


SINGLE, BRAIN, HALF = TOLERANCE


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("operator", "H", "shared", "K", "V", "dtype"),
    [
        *(("gated", 2, 1, 128, 128, dtype) for dtype in TOLERANCE),
        *((operator, 1, 3, 64, 96, dtype) for operator in OPERATORS for dtype in (SINGLE, BRAIN)),
        *(("gated", 2, 2, 100, 60, dtype) for dtype in (SINGLE, HALF)),
        *(("gated", 1, 1, 256, 64, dtype) for dtype in (SINGLE, BRAIN)),
    ],
)
def test_sizes(operator, H, shared, K, V, dtype):
    """1 < H < HV among them; entries per key and value that are a power of two, and that are not."""
    tensors = inputs(operator, L=150, H=H, shared=shared, K=K, V=V, gates=0.1, dtype=dtype)
    compare(operator, tensors, TOLERANCE[dtype], partial(public, operator))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length", [1, 31, 33, 63, 64, 65, 257])
def test_lengths(length, dtype):
    compare("gated", inputs(L=length, K=64, V=64, dtype=dtype), TOLERANCE[dtype], partial(public, "gated"))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gates", [0.0, 1e-2, 1e1, 50.0, math.inf])
def test_gates(gates, dtype):
    """Memories that never fade, fade at once, or are wiped out every third step; strengths of 0 and up to 2."""
    tensors = inputs(L=200, K=64, V=64, gates=0.1, strongest=2.0, dtype=dtype)
    tensors["g"][:, 1::3] = -gates
    tensors["beta"][:, ::4] = 0.0
    compare("gated", tensors, TOLERANCE[dtype], partial(public, "gated"))


@pytest.mark.gpu
def test_gradients_of_half_precision_on_hopper():
    """A product in bfloat16, transposed, as the left operand of the next: wrong by 50 % and more in other kernels for
    chunks of 64 with Triton 3.4 to 3.7.0 (fla #640, #984)."""
    compare("gated", inputs(B=1, L=128, K=128, V=128, dtype=torch.bfloat16), 5e-3, partial(public, "gated"))
    compare("delta", inputs("delta", B=1, L=64, K=128, V=128, dtype=torch.bfloat16), 5e-3, partial(public, "delta"))


@pytest.mark.gpu
@pytest.mark.parametrize("segments", [2, 3, 8])
def test_segments(monkeypatch, segments):
    from ssm_kit.ops.gated_delta import _launch

    monkeypatch.setattr(_launch, "_segments", lambda *sizes: segments)
    for dtype in (torch.float32, torch.bfloat16):
        tensors = inputs(B=1, L=650, K=128, V=96, gates=0.05, dtype=dtype)
        compare("gated", tensors, TOLERANCE[dtype], partial(public, "gated"))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed(dtype):
    bounds = torch.tensor([0, 1, 64, 200, 265, 393], device="cuda")
    tensors = inputs(B=1, L=393, K=64, V=64, S=5, dtype=dtype)
    compare("gated", tensors, TOLERANCE[dtype], partial(public, "gated"), cu_seqlens=bounds)


@pytest.mark.gpu
def test_strides():
    """Heads before time, every second step, and rows that do not begin at a multiple of 16 bytes."""
    tensors = inputs(L=70, H=2, K=64, V=64, dtype=torch.bfloat16)
    expected = evaluate(partial(public, "gated"), tensors)
    views = {
        "q": tensors["q"].transpose(1, 2).contiguous().transpose(1, 2),
        "k": tensors["k"].repeat_interleave(2, dim=1)[:, ::2],
        "v": torch.nn.functional.pad(tensors["v"], (1, 0))[..., 1:],
    }
    found = evaluate(partial(public, "gated"), tensors | views)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.gpu
def test_mixed_dtypes_and_the_outputs_own():
    tensors = inputs(L=70, K=64, V=64, dtype=torch.bfloat16)
    tensors["q"] = tensors["q"].float()
    o, state = public("gated", **tensors)
    assert o.dtype == torch.float32
    assert state.dtype == torch.float32
    expected, _ = gated_delta_rule(**tensors, backend="torch", return_final_state=True)
    torch.testing.assert_close(o, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
def test_twice_the_same_bits(monkeypatch):
    """No atomics: outputs and gradients are the same from run to run; and nothing is left unwritten (NaN poison)."""
    tensors = inputs(L=300, H=2, K=128, V=128, dtype=torch.bfloat16)
    first = evaluate(partial(public, "gated"), tensors)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True)
    try:
        second = evaluate(partial(public, "gated"), tensors)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.gpu
def test_offsets_beyond_32_bits():
    """More than 2^31 elements (mamba #884, #1015): the end of a batch equals its last entry alone."""
    if torch.cuda.mem_get_info()[0] < 60 * 2**30:
        pytest.skip("needs 60 GiB of GPU memory")
    shape, options = (4200, 2048, 2, 128), {"device": "cuda", "dtype": torch.bfloat16}
    k = torch.nn.functional.normalize(torch.randn(shape, **options), dim=-1)
    v, gates = torch.randn(shape, **options), torch.rand(shape[:3], device="cuda")
    with torch.no_grad():
        o = gated_delta_rule(k, k, v, g=-gates, beta=gates, backend="cuda")
        last = gated_delta_rule(k[-1:], k[-1:], v[-1:], g=-gates[-1:], beta=gates[-1:], backend="cuda")
    assert k.numel() > 2**31
    assert float((o[-1:] - last).norm() / last.norm()) <= 5e-3  # alone it walks in segments, so not the same bits


@pytest.mark.gpu
def test_compiled_and_under_autocast():
    tensors = inputs(L=70, K=64, V=64, dtype=torch.bfloat16)
    expected = evaluate(partial(public, "gated"), tensors)
    compiled = torch.compile(partial(public, "gated"), backend="aot_eager", fullgraph=True)
    with torch.autocast("cuda"):
        found = evaluate(compiled, tensors)
    for name, wanted in expected.items():
        torch.testing.assert_close(found[name], wanted, rtol=0, atol=0, msg=name)


@pytest.mark.gpu
def test_second_derivatives_are_refused():
    tensors = {name: tensor.requires_grad_() for name, tensor in inputs(L=5).items()}
    o, _ = public("gated", **tensors)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(o.sum(), tensors["v"], create_graph=True)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("operator", "step", "dtype"),
    [
        *(("gated", gated_delta_rule_step, dtype) for dtype in TOLERANCE),
        ("delta", delta_rule_step, BRAIN),
        ("linear", linear_attention_step, BRAIN),
    ],
)
def test_steps_in_a_graph(operator, step, dtype):
    """Decoding step by step, captured once and replayed, equals the whole sequence."""
    tensors = inputs(operator, L=6, K=64, V=48, dtype=dtype)
    with torch.no_grad():
        o, last = public(operator, **tensors)
        state = tensors.pop("initial_state").clone()
        now = {name: tensor[:, 0].clone() for name, tensor in tensors.items()}
        step(**now, state=state)  # compiles
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found, following = step(**now, state=state)
        for t in range(6):
            for name, tensor in tensors.items():
                now[name].copy_(tensor[:, t])
            graph.replay()
            assert float((found - o[:, t]).norm() / o[:, t].norm()) <= 2 * TOLERANCE[dtype]
            state.copy_(following)
    assert float((state - last).norm() / last.norm()) <= 2 * TOLERANCE[dtype]


@pytest.mark.gpu
def test_a_step_with_gradients_and_one_in_double_precision():
    """Both run in torch, without a word: the kernel has no gradients and no float64."""
    tensors = {name: tensor[:, 0] for name, tensor in inputs(L=1).items() if name != "initial_state"}
    state = torch.randn(2, 2, 8, 5, device="cuda", requires_grad=True)
    o, _ = gated_delta_rule_step(**tensors, state=state)
    (gradient,) = torch.autograd.grad(o.sum(), state)
    assert gradient.abs().sum() > 0
    o, following = gated_delta_rule_step(**{name: x.double() for name, x in tensors.items()}, state=state.double())
    assert o.dtype == following.dtype == torch.float64


@pytest.mark.gpu
def test_what_the_kernels_do_not_take():
    tensors = inputs(L=4, K=300)
    with pytest.raises(NotImplementedError, match="at most 256 entries; got K = 300"):
        public("gated", **tensors)
    with pytest.raises(NotImplementedError, match="the kernels take float32, bfloat16 and float16; got float64"):
        public("gated", **inputs(L=4) | {"g": torch.zeros(2, 4, 2, device="cuda", dtype=torch.float64)})
