"""`first_order_scan`: the definition against numbers, the chunked form against it, split, reversed, step by step."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from oracles import DOUBLE, assert_close, assert_same, evaluate, first_order_entries, strided
from torch import Tensor

from ssm_kit.ops import first_order_scan, first_order_scan_step
from ssm_kit.ops.first_order_scan import chunked

# Chunks have about √L steps: squares, their neighbours and primes.
LENGTHS = (1, 2, 3, 4, 7, 16, 63, 64, 65, 101, 197)


def make(length: int, *, batch: int = 2, channels: int = 3, seed: int = 0, kind: str = "real") -> dict[str, Tensor]:
    """Random arguments, |a| <= 1; "mixed" has real decays and complex inputs."""
    generator = torch.Generator().manual_seed(seed)
    complex_a, complex_b = kind == "complex", kind in ("complex", "mixed")

    def noise(*shape: int, complex_: bool) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.complex128 if complex_ else torch.float64)

    a = noise(batch, length, channels, complex_=complex_a)
    return {
        "a": a / a.abs().clamp(min=1),
        "b": noise(batch, length, channels, complex_=complex_b),
        "initial_state": noise(batch, channels, complex_=complex_b),
    }


def run(backend: str, **options):
    """The operator as a function of keyword tensors that returns (h, state)."""
    return lambda **tensors: first_order_scan(**tensors, **options, backend=backend, return_final_state=True)


kinds = st.sampled_from(["real", "complex", "mixed"])


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("kind", ["real", "complex", "mixed"])
def test_equals_the_equation_number_by_number(backend, kind):
    """At every position, not only the last: a scan with swapped operands may have the last one right (mamba #716)."""
    tensors = make(50, kind=kind)
    h, state = run(backend)(**tensors)
    for row, channel in np.ndindex(2, 3):
        a, b = (tensors[name][row, :, channel] for name in ("a", "b"))
        expected = first_order_entries(a, b, tensors["initial_state"][row, channel])
        np.testing.assert_allclose(h[row, :, channel], expected, rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(state[row, channel], expected[-1], rtol=1e-13, atol=1e-13)


@given(
    length=st.sampled_from(LENGTHS),
    batch=st.integers(1, 3),
    channels=st.sampled_from([1, 3, 5]),
    seed=st.integers(0, 2**32 - 1),
    kind=kinds,
    reverse=st.booleans(),
    with_state=st.booleans(),
)
@settings(max_examples=60)
def test_chunked_equals_the_definition(length, batch, channels, seed, kind, reverse, with_state):
    tensors = make(length, batch=batch, channels=channels, seed=seed, kind=kind)
    if not with_state:
        del tensors["initial_state"]
    assert_same(run("torch", reverse=reverse), run("reference", reverse=reverse), tensors, **DOUBLE)


@pytest.mark.parametrize("width", [1, 12, 40, chunked.WIDTH])
def test_any_number_of_chunks(width, monkeypatch):
    """From one chunk (many channels) to √L chunks (few)."""
    monkeypatch.setattr(chunked, "WIDTH", width)
    assert_same(run("torch"), run("reference"), make(103), **DOUBLE)


@given(length=st.sampled_from(LENGTHS), seed=st.integers(0, 2**32 - 1), kind=kinds)
@settings(max_examples=20)
def test_single_precision(length, seed, kind):
    double = make(length, seed=seed, kind=kind)
    single = {name: t.to(torch.complex64 if t.is_complex() else torch.float32) for name, t in double.items()}
    double = {name: t.to(double[name].dtype) for name, t in single.items()}
    found, wanted = evaluate(run("torch"), single), evaluate(run("reference"), double)
    for name in wanted:
        assert_close(found[name], wanted[name].to(found[name].dtype), 1e-5, name)


@pytest.mark.parametrize("scale", [0.0, 1e-2, 1e-1, 1.0, 2.0])
def test_decays_from_nothing_to_growth(scale):
    tensors = make(197)
    tensors["a"] = tensors["a"].abs() * scale
    assert_same(run("torch"), run("reference"), tensors, **DOUBLE)


def test_a_product_of_decays_may_overflow_where_the_states_do_not():
    """1e2 to the power of a chunk's length is no number in float32; times a state of 0 it must not become NaN."""
    a, b = torch.full((1, 400, 1), 1e2), torch.zeros(1, 400, 1)
    b[:, -3:] = 1.0
    expected = run("reference")(a=a, b=b)
    assert expected[0].isfinite().all()
    torch.testing.assert_close(run("torch")(a=a, b=b), expected)


def test_constant_decay_has_a_closed_form():
    """h_t = (1 - a^t) / (1 - a) for b = 1 and no state."""
    t = torch.arange(1, 2049, dtype=torch.float64)
    ones = torch.ones(1, 2048, 1, dtype=torch.float64)
    h = first_order_scan(0.99 * ones, ones)
    assert_close(h[0, :, 0], (1 - 0.99**t) / (1 - 0.99), 1e-12)


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_reverse_is_the_scan_of_the_flipped_sequence(backend):
    tensors = make(37, kind="complex")
    flipped = tensors | {name: tensors[name].flip(1) for name in ("a", "b")}
    h, state = run(backend, reverse=True)(**tensors)
    forward, last = run(backend)(**flipped)
    assert_close(h, forward.flip(1), 1e-13)
    assert_close(state, last, 1e-13)
    assert_close(state, h[:, 0], 1e-13)


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_the_gradient_is_the_reverse_scan(backend):
    """The gradient with respect to b is the scan from the end, with the next step's decay."""
    tensors = make(37)
    weights = torch.randn(2, 37, 3, dtype=torch.float64)
    b = tensors["b"].requires_grad_()
    (gradient,) = torch.autograd.grad(run(backend)(**tensors)[0], b, weights)
    later = torch.cat([tensors["a"][:, 1:], torch.ones(2, 1, 3, dtype=torch.float64)], 1)
    assert_close(gradient, first_order_scan(later, weights, reverse=True), 1e-12)


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cut", [1, 17, 63])
def test_a_sequence_can_be_split_anywhere(backend, reverse, cut):
    def split(a, b, initial_state):
        order = [slice(cut, None), slice(cut)] if reverse else [slice(cut), slice(cut, None)]
        parts, state = [], initial_state
        for now in order:
            h, state = run(backend, reverse=reverse)(a=a[:, now], b=b[:, now], initial_state=state)
            parts.append(h)
        return torch.cat(parts[::-1] if reverse else parts, 1), state

    assert_same(split, run(backend, reverse=reverse), make(64), **DOUBLE)


@pytest.mark.parametrize("kind", ["real", "complex", "mixed"])
def test_step_by_step_equals_parallel(kind):
    tensors = make(65, kind=kind)
    h, final = run("torch")(**tensors)
    state = tensors["initial_state"]
    for t in range(65):
        before = state.clone()
        following = first_order_scan_step(tensors["a"][:, t], tensors["b"][:, t], state=state)
        torch.testing.assert_close(state, before, rtol=0, atol=0)
        assert_close(following, h[:, t], 1e-12, f"h_{t}")
        state = following
    assert_close(state, final, 1e-12)


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_strides_and_a_repeated_call_do_not_matter(backend):
    tensors = make(65, kind="complex")
    odd = {name: strided(tensor) for name, tensor in tensors.items()}
    first, second, wanted = (evaluate(run(backend), given) for given in (odd, odd, tensors))
    for name in wanted:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)
        assert_close(first[name], wanted[name], 1e-13, name)


def test_reference_is_differentiable_twice_and_chunked_once():
    for kind in ("real", "complex"):
        leaves = {name: tensor.requires_grad_() for name, tensor in make(4, batch=1, channels=2, kind=kind).items()}
        for backend in ("reference", "torch"):
            function = lambda *v, b=backend, names=tuple(leaves): run(b)(**dict(zip(names, v, strict=True)))  # noqa: E731
            assert torch.autograd.gradcheck(function, tuple(leaves.values()))
            if backend == "reference":
                assert torch.autograd.gradgradcheck(function, tuple(leaves.values()))
    a = torch.rand(1, 4, 2, requires_grad=True)
    h = first_order_scan(a, a).sum()
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(h, a, create_graph=True)


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_single(backend, dtype):
    tensors = {name: tensor.to(dtype) for name, tensor in make(65).items()}
    h, state = run(backend)(**tensors)
    expected, last = run(backend)(**{name: tensor.float() for name, tensor in tensors.items()})
    assert (h.dtype, state.dtype) == (dtype, torch.float32)
    torch.testing.assert_close(h, expected.to(dtype), rtol=0, atol=0)
    torch.testing.assert_close(state, last, rtol=0, atol=0)


def test_the_number_of_operations_grows_with_the_root_of_the_length(monkeypatch):
    """What makes the chunked form fast where B · D is small."""
    calls, addcmul = [], torch.addcmul
    monkeypatch.setattr(torch, "addcmul", lambda *args, **kwargs: calls.append(1) or addcmul(*args, **kwargs))
    first_order_scan(torch.rand(1, 4096, 1), torch.rand(1, 4096, 1))
    assert 0 < len(calls) < 4 * math.isqrt(4096)


BAD = [
    ({"a": torch.zeros(2, 5)}, r"a must have shape \(B, L, D\); got \(2, 5\)"),
    ({"a": torch.zeros(2, 0, 3)}, r"a must have shape \(B, L, D\) without an empty axis; got \(2, 0, 3\)"),
    ({"a": torch.zeros(2, 5, 3).long()}, r"a must have a dtype of float16, .*complex128; got int64"),
    ({"a": [1.0]}, r"a must be a torch.Tensor; got list"),
    ({"b": torch.zeros(2, 5, 4)}, r"b must have shape \(B, L, D\) = \(2, 5, 3\); got \(2, 5, 4\)"),
    ({"b": torch.zeros(2, 5, 3, device="meta")}, r"b must be on a's device, cpu; got meta"),
    ({"initial_state": torch.zeros(3)}, r"initial_state must have shape \(B, D\); got \(3,\)"),
    ({"initial_state": torch.zeros(2, 4)}, r"initial_state must have shape \(B, D\) = \(2, 3\); got \(2, 4\)"),
    ({"backend": None}, r"backend must be one of 'auto', 'reference', 'torch', 'cuda'; got None"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        first_order_scan(**make(5) | change)


def test_a_bad_step_is_named():
    with pytest.raises(ValueError, match=r"state must have shape \(B, D\) = \(2, 3\); got \(2, 2\)"):
        first_order_scan_step(torch.zeros(2, 3), torch.zeros(2, 3), state=torch.zeros(2, 2))


def test_gpu_kernels_want_a_gpu():
    with pytest.raises(ValueError, match='backend="cuda" must be given tensors on a CUDA device; got cpu'):
        first_order_scan(**make(5), backend="cuda")
