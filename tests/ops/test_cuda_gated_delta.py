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
    """Two chunks of 32, a tail, value heads that share a key; K and V that are no power of two."""
    compare(operator, inputs(operator, B=1, K=6), 1e-5)


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
@pytest.mark.parametrize("unit", [False, True])
def test_small_step(unit):
    """The decoding step of the three operators."""
    from ssm_kit.ops.gated_delta import _arguments, cuda, reference

    tensors = {name: tensor[:, 0] for name, tensor in inputs(L=1).items()}
    state = torch.randn(2, 2, 8, 5, device=DEVICE)
    q, k, v, g, beta = (tensors[name] for name in ("q", "k", "v", "g", "beta"))
    wide = [_arguments.spread(x.double(), 2, unit) for x in (q, k)]
    for used in ((g, beta), (None, beta), (g, None)):
        found = cuda.step(q, k, v, *used, state, 0.3, unit)
        g_64, beta_64 = torch.zeros_like(g).double() if used[0] is None else g.double(), used[1]
        wanted = reference.step(*wide, v.double(), g_64, beta_64 if used[1] is None else beta.double(), state.double(), 0.3)
        for actual, expected in zip(found, wanted, strict=True):
            torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(INTERPRETED, reason="this is the process that runs the interpreter")
def test_in_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "small", __file__]
    done = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, timeout=170
    )
    assert done.returncode == 0, done.stdout
    assert "8 passed" in done.stdout, done.stdout
