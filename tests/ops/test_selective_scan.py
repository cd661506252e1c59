"""`selective_scan`: the definition against numbers, the chunked form against it, and the bugs of this field."""

from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from oracles import DOUBLE, SINGLE, assert_close, assert_same, evaluate, lengths, selective_scan_entries, strided
from torch import Tensor

from ssm_kit.ops import selective_scan, selective_scan_step
from ssm_kit.ops.selective_scan.chunked import CHUNK

OPTIONS = ("D", "z", "delta_bias", "initial_state")


def make(
    length: int, *, batch: int = 2, channels: int = 6, states: int = 3, groups: int = 2, seed: int = 0,
    complex_A: bool = False, complex_BC: bool = False, dtype: torch.dtype = torch.float64,
) -> dict[str, Tensor]:  # fmt: skip
    """Random arguments: step sizes around 0.1 to 1, half-lives from below one step to many."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int, kind: torch.dtype = torch.float64) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=kind)

    BC = torch.complex128 if complex_BC else torch.float64
    A = -torch.rand(channels, states, generator=generator, dtype=torch.float64) * 2
    A = A + 3j * noise(channels, states) if complex_A else A
    tensors = {
        "x": noise(batch, length, channels),
        "delta": torch.rand(batch, length, channels, generator=generator, dtype=torch.float64),
        "A": A,
        "B": noise(batch, length, groups, states, kind=BC),
        "C": noise(batch, length, groups, states, kind=BC),
        "D": noise(channels),
        "z": noise(batch, length, channels),
        "delta_bias": torch.rand(channels, generator=generator, dtype=torch.float64),
        "initial_state": noise(batch, channels, states, kind=torch.promote_types(A.dtype, BC)),
    }
    return {name: cast(tensor, dtype) for name, tensor in tensors.items()}


def cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype.to_complex() if tensor.is_complex() else dtype)


def run(backend: str, **options):
    """The operator as a function of keyword tensors that returns (y, state)."""
    return lambda **tensors: selective_scan(**tensors, **options, backend=backend, return_final_state=True)


def at(tensors: dict[str, Tensor], now: slice | int) -> dict[str, Tensor]:
    """The arguments for a span of time, or for one step; without the state."""
    timed = ("x", "delta", "B", "C", "z")
    return {
        name: t[:, now] if name in timed else t for name, t in tensors.items() if name != "initial_state"
    }  # fmt: skip


sizes = {
    "length": st.sampled_from(lengths(CHUNK)),
    "batch": st.integers(1, 3),
    "groups_and_channels": st.sampled_from([(1, 1), (1, 5), (2, 6), (3, 3), (3, 9)]),
    "states": st.sampled_from([1, 3, 4]),
    "seed": st.integers(0, 2**32 - 1),
}


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("complex_A", [False, True])
def test_equals_the_equations_number_by_number(backend, complex_A):
    """Groups are neighbours, as `repeat_interleave` makes them (transformers #37533 had them repeated): 1 < G < D."""
    tensors = make(37, complex_A=complex_A, complex_BC=complex_A)
    y, state = run(backend, delta_softplus=True)(**tensors)
    expected_y, expected_state = selective_scan_entries(*(tensors[name] for name in ("x", "delta", "A", "B", "C")),
        *(tensors[name] for name in ("D", "z", "delta_bias", "initial_state")))  # fmt: skip
    np.testing.assert_allclose(y, expected_y, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(state, expected_state, rtol=1e-12, atol=1e-12)


@given(
    **sizes,
    complex_A=st.booleans(),
    complex_BC=st.booleans(),
    softplus=st.booleans(),
    left_out=st.sets(st.sampled_from(OPTIONS)),
)
@settings(max_examples=60)
def test_chunked_equals_the_definition(
    length, batch, groups_and_channels, states, seed, complex_A, complex_BC, softplus, left_out
):
    """Values and every gradient. Lengths that do not fill a chunk gave NaN elsewhere (mamba #352, #353)."""
    groups, channels = groups_and_channels
    tensors = make(length, batch=batch, channels=channels, states=states, groups=groups, seed=seed,
                   complex_A=complex_A, complex_BC=complex_BC)  # fmt: skip
    tensors = {name: tensor for name, tensor in tensors.items() if name not in left_out}
    options = {"delta_softplus": softplus}
    assert_same(run("torch", **options), run("reference", **options), tensors, **DOUBLE)


@given(length=st.sampled_from(lengths(CHUNK)), seed=st.integers(0, 2**32 - 1), complex_A=st.booleans())
@settings(max_examples=15)
def test_single_precision(length, seed, complex_A):
    tensors = make(length, seed=seed, complex_A=complex_A)
    single = {name: cast(tensor, torch.float32) for name, tensor in tensors.items()}
    double = {name: cast(tensor, torch.float64) for name, tensor in single.items()}
    found, wanted = evaluate(run("torch"), single), evaluate(run("reference"), double)
    for name in wanted:
        assert_close(found[name], wanted[name].to(found[name].dtype), 1e-5, name)


@pytest.mark.parametrize("scale", [1e-2, 1e-1, 1.0, 1e1, 4e1])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, SINGLE), (torch.float64, DOUBLE)])
def test_small_and_large_steps_stay_finite_and_right(scale, dtype, tolerance):
    """Decays from almost 1 to underflow: sums of logarithms overflow there (fla #77, #99, #736)."""
    tensors = make(3 * CHUNK + 5, dtype=dtype)
    tensors["delta"] = tensors["delta"] * scale
    assert_same(run("torch"), run("reference"), tensors, **tolerance)


@pytest.mark.parametrize("pattern", ["zero", "one huge", "reset every fifth"])
def test_steps_that_keep_or_clear_the_state(pattern):
    """Δ = 0 keeps the state exactly; a huge Δ clears it, without NaN in any gradient."""
    tensors = make(2 * CHUNK + 3)
    delta = torch.zeros_like(tensors["delta"])
    if pattern != "zero":
        delta[:, 5 :: 5 if pattern.startswith("reset") else 1000] = 1e4
    tensors |= {"delta": delta, "delta_bias": torch.zeros_like(tensors["delta_bias"])}
    assert_same(run("torch"), run("reference"), tensors, **DOUBLE)
    if pattern == "zero":
        torch.testing.assert_close(run("torch")(**tensors)[1], tensors["initial_state"], rtol=0, atol=0)


@pytest.mark.parametrize("complex_A", [False, True])
def test_strides_do_not_matter(complex_A):
    tensors = make(CHUNK + 5, complex_A=complex_A)
    odd = {name: strided(tensor) for name, tensor in tensors.items()}
    assert not odd["x"].is_contiguous()
    found, wanted = evaluate(run("torch"), odd), evaluate(run("torch"), tensors)
    for name in wanted:
        assert_close(found[name], wanted[name], 1e-12, name)


def test_expanded_arguments_get_full_gradients():
    """A stride of 0: one B and C for all channels and rows, as models pass them."""
    tensors = make(CHUNK + 1, batch=1)
    wide = lambda backend: lambda B, **t: run(backend)(B=B.expand(3, -1, -1, -1), **t)  # noqa: E731
    rest = make(CHUNK + 1, batch=3) | {"B": tensors["B"]}
    assert_same(wide("torch"), wide("reference"), rest, **DOUBLE)


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("cut", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 4])
def test_a_sequence_can_be_split_anywhere(backend, cut):
    """Values and gradients, through the state passed on: at least three chunks (transformers #34817, #47246)."""

    def split(**tensors):
        first, state = run(backend)(**at(tensors, slice(cut)), initial_state=tensors["initial_state"])
        second, state = run(backend)(**at(tensors, slice(cut, None)), initial_state=state)
        return torch.cat([first, second], 1), state

    assert_same(split, run(backend), make(2 * CHUNK + 5), **DOUBLE)


def test_step_by_step_equals_parallel():
    """Prefill t steps, then decode: the same outputs for every t (transformers #46190)."""
    tensors = make(CHUNK + 4, complex_A=True)
    y, final = run("torch", delta_softplus=True)(**tensors)
    state = tensors["initial_state"]
    for t in range(CHUNK + 4):
        y_t, state = selective_scan_step(**at(tensors, t), state=state, delta_softplus=True)
        assert_close(y_t, y[:, t], 1e-12, f"y_{t}")
        prefilled = run("torch", delta_softplus=True)(
            **at(tensors, slice(t + 1)), initial_state=tensors["initial_state"]
        )[1]
        assert_close(state, prefilled, 1e-12, f"state {t}")
    assert_close(state, final, 1e-12, "final state")


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("bounds", [[0, 41], [0, 1, 41], [0, CHUNK, 2 * CHUNK, 2 * CHUNK + 1], [0, 5, 6, 40, 90, 97]])
def test_packed_sequences_equal_separate_ones(backend, bounds):
    """Nothing flows across a boundary, forward or backward, and every sequence has its own state."""
    tensors = make(bounds[-1], batch=1)
    tensors["initial_state"] = make(1, batch=len(bounds) - 1)["initial_state"]

    def separate(**tensors):
        states = tensors["initial_state"].split(1)
        pieces = [slice(*pair) for pair in pairwise(bounds)]
        runs = [run(backend)(**at(tensors, piece), initial_state=h) for piece, h in zip(pieces, states, strict=True)]
        return tuple(torch.cat(parts, axis) for parts, axis in zip(zip(*runs, strict=True), (1, 0), strict=True))

    assert_same(run(backend, cu_seqlens=torch.tensor(bounds)), separate, tensors, **DOUBLE)


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_padding_of_zero_step_leaves_state_and_gradients(backend):
    """Δ = 0 steps at the end change nothing, backward included (mamba #368: softplus applied to the padding)."""
    tensors = make(CHUNK + 3)
    del tensors["delta_bias"]

    def padded(**tensors):
        timed = {name: tensors[name] for name in ("x", "delta", "B", "C", "z")}
        pad = {name: torch.cat([t, torch.zeros_like(t[:, :7])], 1) for name, t in timed.items()}
        y, state = run(backend)(**tensors | pad)
        return y[:, : CHUNK + 3], state

    assert_same(padded, run(backend), tensors, **DOUBLE)


@pytest.mark.parametrize("complex_A", [False, True])
def test_first_and_second_derivatives_of_the_definition(complex_A):
    tensors = make(3, batch=1, channels=2, states=2, groups=1, complex_A=complex_A, complex_BC=complex_A)
    leaves = [tensor.requires_grad_() for tensor in tensors.values()]

    def function(*values):
        return run("reference", delta_softplus=True)(**dict(zip(tensors, values, strict=True)))

    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


def test_chunked_derivatives_by_differences():
    tensors = make(CHUNK + 2, batch=1, channels=2, states=1, groups=2)
    leaves = [tensor.requires_grad_() for tensor in tensors.values()]
    function = lambda *values: run("torch")(**dict(zip(tensors, values, strict=True)))  # noqa: E731
    assert torch.autograd.gradcheck(function, leaves)


def test_a_second_derivative_of_the_chunked_form_is_refused():
    tensors = make(5)
    x = tensors.pop("x").requires_grad_()
    y = selective_scan(x, **tensors, backend="torch").sum()
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(y, x, create_graph=True)


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_every_input_has_a_gradient(backend):
    """A fallback of mamba-ssm-macos (#7) had none for its input, silently."""
    gradients = evaluate(run(backend, delta_softplus=True), make(CHUNK + 3))
    assert all(bool((value != 0).any()) for value in gradients.values())


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_twice_forward_twice_backward_and_inputs_unchanged(backend):
    """Neither pass writes into what it was given (a cloned cache was, in transformers #29563)."""
    tensors = make(CHUNK + 3)
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    first, second = (evaluate(run(backend), tensors) for _ in range(2))
    for results in zip(first.values(), second.values(), strict=True):
        torch.testing.assert_close(*results, rtol=0, atol=0)
    for name in tensors:
        torch.testing.assert_close(tensors[name], before[name], rtol=0, atol=0)


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_single(backend, dtype):
    tensors = {name: tensor.to(dtype) for name, tensor in make(CHUNK + 3).items()}
    single = {name: tensor.float() for name, tensor in tensors.items()}
    (y, state), (expected_y, expected_state) = run(backend)(**tensors), run(backend)(**single)
    assert (y.dtype, state.dtype) == (dtype, torch.float32)
    torch.testing.assert_close(y, expected_y.to(dtype), rtol=0, atol=0)
    torch.testing.assert_close(state, expected_state, rtol=0, atol=0)
    gradients = evaluate(run(backend), tensors)
    assert all(gradients[f"gradient of {name}"].dtype == dtype for name in tensors)


def test_autocast_does_not_reach_inside():
    tensors = make(CHUNK + 3, dtype=torch.float32)
    expected = evaluate(run("torch"), tensors)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = evaluate(run("torch"), tensors)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=0)


@pytest.mark.parametrize("groups_of", ["B", "C"])
def test_one_group_may_come_without_its_axis(groups_of):
    """B (B, L, N) beside C (B, L, G, N) is shared by all channels, and the other way round."""
    tensors = make(9)
    flat = tensors | {groups_of: tensors[groups_of][:, :, 0]}
    full = tensors | {groups_of: tensors[groups_of][:, :, :1].expand(-1, -1, 2, -1)}
    torch.testing.assert_close(run("torch")(**flat), run("torch")(**full))


def test_memory_does_not_hold_the_states():
    """What the backward pass keeps is a fraction of the L · N states (transformers #48978 kept them all, broadcast)."""
    tensors = make(16 * CHUNK, batch=1, channels=8, states=16, groups=1, dtype=torch.float32)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.untyped_storage().nbytes()) or t, lambda t: t
    ):
        run("torch")(**{name: tensor.requires_grad_() for name, tensor in tensors.items()})
    states = 16 * CHUNK * 8 * 16 * 4
    assert sum(kept) < states


BAD = [
    ({"x": torch.zeros(2, 5)}, r"x must have shape \(B, L, D\); got \(2, 5\)"),
    ({"x": torch.zeros(2, 0, 6)}, r"x must have shape \(B, L, D\) without an empty axis; got \(2, 0, 6\)"),
    ({"x": torch.zeros(2, 5, 6).int()}, r"x must have a dtype of float16, .*; got int32"),
    ({"x": torch.zeros(2, 5, 6) + 0j}, r"x must have a dtype of float16, .*float64; got complex64"),
    ({"x": np.zeros((2, 5, 6))}, r"x must be a torch.Tensor; got ndarray"),
    ({"delta": torch.zeros(2, 4, 6)}, r"delta must have shape \(B, L, D\) = \(2, 5, 6\); got \(2, 4, 6\)"),
    ({"delta": torch.full((2, 5, 6), -2.0), "delta_bias": None}, r"delta must be >= 0, .*delta_softplus=True; got -2"),
    ({"delta": torch.full((2, 5, 6), -2.0)}, r"delta \+ delta_bias must be >= 0"),
    ({"A": torch.zeros(5, 3)}, r"A must have shape \(D, N\) = \(6, N\); got \(5, 3\)"),
    ({"B": torch.zeros(2, 5, 2, 4)}, r"B must have shape \(B, L, G, N\) = \(2, 5, G, 3\); got \(2, 5, 2, 4\)"),
    ({"C": torch.zeros(2, 5, 3, 3)}, r"C must have shape \(B, L, G, N\) = \(2, 5, 2, 3\); got \(2, 5, 3, 3\)"),
    ({"C": torch.zeros(5, 3)}, r"C must have shape \(B, L, N\) or \(B, L, G, N\); got \(5, 3\)"),
    ({"B": torch.zeros(2, 5, 4, 3), "C": torch.zeros(2, 5, 4, 3)}, r"x: .*channels must be a multiple of G = 4; got 6"),
    ({"D": torch.zeros(5)}, r"D must have shape \(D,\) = \(6,\); got \(5,\)"),
    ({"z": torch.zeros(2, 5, 5)}, r"z must have shape \(B, L, D\) = \(2, 5, 6\); got \(2, 5, 5\)"),
    ({"delta_bias": torch.zeros(6, 1)}, r"delta_bias must have shape \(D,\); got \(6, 1\)"),
    ({"initial_state": torch.ones(1, 6, 3)}, r"initial_state must have shape \(B, D, N\) = \(2, 6, 3\); got"),
    ({"initial_state": torch.zeros(2, 6, 3).int()}, r"initial_state must have a dtype of .*; got int32"),
    ({"A": torch.zeros(6, 3, device="meta")}, r"A must be on x's device, cpu; got meta"),
    ({"backend": "fast"}, r"backend must be one of 'auto', 'reference', 'torch', 'cuda'; got 'fast'"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        selective_scan(**make(5) | change)


BAD_BOUNDS = [
    ([0, 5], r"cu_seqlens must be a tensor of int32 or int64; got list"),
    (torch.tensor([0.0, 5.0]), r"cu_seqlens must be a tensor of int32 or int64; got a tensor of torch.float32"),
    (torch.tensor([5]), r"cu_seqlens must have shape \(S \+ 1,\) with S >= 1; got \(1,\)"),
    (torch.tensor([0, 4]), r"cu_seqlens must run from 0 to L = 5; got 0 to 4"),
    (torch.tensor([0, 2, 2, 5]), r"cu_seqlens must rise at every step \(no empty sequence\); got \[0, 2, 2, 5\]"),
]


@pytest.mark.parametrize(("bounds", "message"), BAD_BOUNDS)
def test_bad_bounds_are_named(bounds, message):
    with pytest.raises(ValueError, match=message):
        selective_scan(**make(5, batch=1), cu_seqlens=bounds)


def test_packed_sequences_need_one_row_and_one_state_each():
    with pytest.raises(ValueError, match=r"cu_seqlens must come with tensors of batch size 1.*; got batch 2"):
        selective_scan(**make(5), cu_seqlens=torch.tensor([0, 5]))
    with pytest.raises(ValueError, match=r"initial_state must have shape \(S, D, N\) = \(2, 6, 3\); got \(1, 6, 3\)"):
        selective_scan(**make(5, batch=1), cu_seqlens=torch.tensor([0, 2, 5]))


def test_a_bad_step_is_named():
    tensors = at(make(5), 0)
    with pytest.raises(ValueError, match=r"state must have shape \(B, D, N\) = \(2, 6, 3\); got \(2, 6, 4\)"):
        selective_scan_step(**tensors, state=torch.zeros(2, 6, 4))
    with pytest.raises(ValueError, match=r"delta must have shape \(B, D\) = \(2, 6\); got \(2, 5\)"):
        selective_scan_step(**tensors | {"delta": torch.zeros(2, 5)}, state=torch.zeros(2, 6, 3))


def test_gpu_kernels_want_tensors_on_a_gpu():
    with pytest.raises(ValueError, match='backend="cuda" must be given tensors on a CUDA device; got cpu'):
        selective_scan(**make(5), backend="cuda")
