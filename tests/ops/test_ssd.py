"""`ssd`: the definition against numbers, the chunked form against it, and the bugs of this field."""

import math
from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from oracles import DOUBLE, SINGLE, assert_close, assert_same, evaluate, lengths, strided
from torch import Tensor

from ssm_kit.ops import selective_scan, ssd, ssd_step
from ssm_kit.ops.ssd import chunked

CHUNK = 16
OPTIONS = ("D", "z", "delta_bias", "initial_state")


def make(
    length: int, *, batch: int = 2, heads: int = 6, width: int = 3, groups: int = 2, states: int = 5,
    wide_skip: bool = False, seed: int = 0, dtype: torch.dtype = torch.float64,
) -> dict[str, Tensor]:  # fmt: skip
    """Random arguments; P = width. Half-lives from below one step to many; 1 < G < H, so that groups show."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    tensors = {
        "x": noise(batch, length, heads, width),
        "delta": uniform(batch, length, heads),
        "A": -2 * uniform(heads),
        "B": noise(batch, length, groups, states),
        "C": noise(batch, length, groups, states),
        "D": noise(heads, width) if wide_skip else noise(heads),
        "z": noise(batch, length, heads, width),
        "delta_bias": uniform(heads),
        "initial_state": noise(batch, heads, width, states),
    }
    return {name: tensor.to(dtype) for name, tensor in tensors.items()}


def run(backend: str, **options):
    """The operator as a function of keyword tensors that returns (y, state)."""
    options = {"chunk_size": CHUNK, "backend": backend, "return_final_state": True} | options
    return lambda **tensors: ssd(**tensors, **options)


def at(tensors: dict[str, Tensor], now: slice | int) -> dict[str, Tensor]:
    """The arguments for a span of time, or for one step; without the state."""
    timed = ("x", "delta", "B", "C", "z")
    return {name: t[:, now] if name in timed else t for name, t in tensors.items() if name != "initial_state"}


def entries(tensors: dict[str, Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """y and the final state with softplus, skip D (H,) and gate, number by number."""
    x, delta, A, B, C, D, z, bias, h = (tensors[name].numpy() for name in tensors)
    h, y = h.copy(), np.zeros(x.shape)
    batch, length, heads, width = x.shape
    for b, t, head, p in np.ndindex(batch, length, heads, width):
        group = head // (heads // B.shape[2])
        step = math.log1p(math.exp(delta[b, t, head] + bias[head]))
        total = D[head] * x[b, t, head, p]
        for n in range(B.shape[3]):
            write = step * x[b, t, head, p] * B[b, t, group, n]
            h[b, head, p, n] = math.exp(step * A[head]) * h[b, head, p, n] + write
            total += C[b, t, group, n] * h[b, head, p, n]
        y[b, t, head, p] = total * z[b, t, head, p] / (1 + math.exp(-z[b, t, head, p]))
    return y, h


@pytest.fixture(params=[1, 2**40], ids=["blocks of one chunk", "one block"])
def _block(request, monkeypatch):
    """Both ways that a sequence can be cut into blocks, small as it is here."""
    monkeypatch.setattr(chunked, "CPU_BLOCK", request.param)


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_equals_the_equations_number_by_number(backend):
    """Groups are neighbours, as `repeat_interleave` makes them (transformers #37533 had them repeated): 1 < G < H."""
    tensors = make(37)
    y, state = run(backend, delta_softplus=True)(**tensors)
    expected_y, expected_state = entries(tensors)
    np.testing.assert_allclose(y, expected_y, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(state, expected_state, rtol=1e-12, atol=1e-12)


@given(
    length=st.sampled_from(lengths(CHUNK)),
    batch=st.integers(1, 3),
    groups_and_heads=st.sampled_from([(1, 1), (1, 5), (2, 6), (3, 3), (3, 9)]),
    width=st.sampled_from([1, 3, 4]),
    states=st.sampled_from([1, 3, 8]),
    chunk_size=st.sampled_from([1, 7, CHUNK, 64]),
    softplus=st.booleans(),
    wide_skip=st.booleans(),
    left_out=st.sets(st.sampled_from(OPTIONS)),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60)
def test_chunked_equals_the_definition(
    length, batch, groups_and_heads, width, states, chunk_size, softplus, wide_skip, left_out, seed
):
    """Values and every gradient. Lengths that do not fill a chunk gave NaN elsewhere (mamba #352, #353), and more
    than one group gave exploding gradients (mamba #547, #574)."""
    groups, heads = groups_and_heads
    tensors = make(length, batch=batch, heads=heads, width=width, groups=groups, states=states, wide_skip=wide_skip,
                   seed=seed)  # fmt: skip
    tensors = {name: tensor for name, tensor in tensors.items() if name not in left_out}
    options = {"delta_softplus": softplus, "chunk_size": chunk_size}
    assert_same(run("torch", **options), run("reference", **options), tensors, **DOUBLE)


@pytest.mark.usefixtures("_block")
@pytest.mark.parametrize("length", [3 * CHUNK, 5 * CHUNK + 3])
def test_many_chunks_with_a_state(length):
    """The recurrence between chunks was summed over the wrong axis elsewhere (transformers #34817, #47246): at least
    three chunks, a random state, on every run; chunks in one block and in many."""
    assert_same(run("torch"), run("reference"), make(length), **DOUBLE)


@given(length=st.sampled_from(lengths(CHUNK)), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=15)
def test_single_precision(length, seed):
    single = make(length, seed=seed, dtype=torch.float32)
    double = {name: tensor.double() for name, tensor in single.items()}
    found, wanted = evaluate(run("torch"), single), evaluate(run("reference"), double)
    for name in wanted:
        assert_close(found[name], wanted[name].float(), 1e-5, name)


@pytest.mark.usefixtures("_block")
@pytest.mark.parametrize("scale", [1e-2, 1e-1, 1.0, 1e1, 4e1])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, SINGLE), (torch.float64, DOUBLE)])
def test_small_and_large_steps_stay_finite_and_right(scale, dtype, tolerance):
    """Decays from almost 1 to underflow: running totals of their logarithms overflow there (fla #77, #99, #736)."""
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


def test_small_decays_between_huge_ones_keep_their_digits():
    """Differences of running totals lose them: totals of 10⁴ leave three digits of a decay near 1 in float32."""
    tensors = make(4 * CHUNK, dtype=torch.float32)
    tensors["delta"][:, ::8] = 2e3
    tensors["delta"][:, 1::8] = 1e-3
    exact = {name: tensor.double() for name, tensor in tensors.items()}
    options = {"chunk_size": 2 * CHUNK}
    found, wanted = evaluate(run("torch", **options), tensors), evaluate(run("reference"), exact)
    for name in wanted:
        assert_close(found[name], wanted[name].float(), 1e-5, name)


def test_strides_do_not_matter():
    tensors = make(CHUNK + 5)
    odd = {name: strided(tensor) for name, tensor in tensors.items()}
    assert not odd["x"].is_contiguous()
    found, wanted = evaluate(run("torch"), odd), evaluate(run("torch"), tensors)
    for name in wanted:
        assert_close(found[name], wanted[name], 1e-12, name)


def test_expanded_arguments_get_full_gradients():
    """A stride of 0: one B and C for all rows, and a loss whose gradient is one number for all entries."""
    rest = make(CHUNK + 1, batch=3) | {"B": make(CHUNK + 1, batch=1)["B"]}
    wide = lambda backend: lambda B, **t: run(backend)(B=B.expand(3, -1, -1, -1), **t)[0].sum()  # noqa: E731
    assert_same(wide("torch"), wide("reference"), rest, **DOUBLE)


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("cut", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 4])
def test_a_sequence_can_be_split_anywhere(backend, cut):
    """Values and gradients, through the state passed on."""

    def split(**tensors):
        first, state = run(backend)(**at(tensors, slice(cut)), initial_state=tensors["initial_state"])
        second, state = run(backend)(**at(tensors, slice(cut, None)), initial_state=state)
        return torch.cat([first, second], 1), state

    assert_same(split, run(backend), make(2 * CHUNK + 5), **DOUBLE)


def test_step_by_step_equals_parallel():
    """Prefill t steps, then decode: the same outputs for every t (transformers #46190)."""
    tensors = make(CHUNK + 4, wide_skip=True)
    y, final = run("torch", delta_softplus=True)(**tensors)
    state = start = tensors["initial_state"]
    for t in range(CHUNK + 4):
        y_t, state = ssd_step(**at(tensors, t), state=state, delta_softplus=True)
        assert_close(y_t, y[:, t], 1e-12, f"y_{t}")
        prefilled = run("torch", delta_softplus=True)(**at(tensors, slice(t + 1)), initial_state=start)[1]
        assert_close(state, prefilled, 1e-12, f"state {t}")
    assert_close(state, final, 1e-12, "final state")


def test_equals_a_selective_scan_with_the_same_decay_for_all_channels_of_a_head():
    """Mamba-2's operator is Mamba-1's with A = a scalar times the identity."""
    tensors = make(2 * CHUNK + 5)
    y, state = run("torch")(**tensors)
    heads, width, states = state.shape[1:]

    def per_channel(tensor: Tensor) -> Tensor:
        return tensor.repeat_interleave(width, dim=-1)

    timed = {name: tensors[name].flatten(2) for name in ("x", "z")} | {name: tensors[name] for name in ("B", "C")}
    plain = {name: per_channel(tensors[name]) for name in ("delta", "D", "delta_bias")}
    A = per_channel(tensors["A"])[:, None].expand(-1, states)
    start = tensors["initial_state"].flatten(1, 2)
    expected = selective_scan(**timed, **plain, A=A, initial_state=start, return_final_state=True)
    assert_close(y.flatten(2), expected[0], 1e-12, "y")
    assert_close(state, expected[1].unflatten(1, (heads, width)), 1e-12, "state")


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


def test_first_and_second_derivatives_of_the_definition():
    tensors = make(3, batch=1, heads=2, width=2, groups=1, states=2)
    leaves = [tensor.requires_grad_() for tensor in tensors.values()]

    def function(*values):
        return run("reference", delta_softplus=True)(**dict(zip(tensors, values, strict=True)))

    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


def test_chunked_derivatives_by_differences():
    tensors = make(7, batch=1, heads=2, width=1, groups=2, states=2)
    leaves = [tensor.requires_grad_() for tensor in tensors.values()]
    function = lambda *values: run("torch", chunk_size=3)(**dict(zip(tensors, values, strict=True)))  # noqa: E731
    assert torch.autograd.gradcheck(function, leaves)


def test_a_second_derivative_of_the_chunked_form_is_refused():
    tensors = make(5)
    x = tensors.pop("x").requires_grad_()
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(ssd(x, **tensors, backend="torch").square().sum(), x, create_graph=True)


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
    ssd_step(**at(tensors, 0), state=tensors["initial_state"])
    for name in tensors:
        torch.testing.assert_close(tensors[name], before[name], rtol=0, atol=0)


def test_two_backward_passes_through_one_forward_pass():
    tensors = make(3 * CHUNK + 3)
    leaves = [tensor.requires_grad_() for tensor in tensors.values()]
    loss = run("torch")(**tensors)[0].square().sum()
    first, second = (torch.autograd.grad(loss, leaves, retain_graph=True) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


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


class Largest(torch.utils._python_dispatch.TorchDispatchMode):
    """Records the largest number of elements in any tensor that an operation returned with memory of its own."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.elements = max(self.elements, result.untyped_storage().nbytes() // result.element_size())
        return result


def test_no_temporary_outgrows_a_block(monkeypatch):
    """An implementation elsewhere broadcast, multiplied and summed: 4 GiB for what einsum does in 0.03 (transformers
    #48978). Here nothing is larger than the arguments, forward or backward, where Q · P · N would be."""
    monkeypatch.setattr(chunked, "CPU_BLOCK", 1)
    tensors = make(64 * CHUNK, batch=1, heads=2, width=16, groups=1, states=32, dtype=torch.float32)
    with Largest() as largest:
        evaluate(run("torch"), tensors)
    assert largest.elements == max(tensor.numel() for tensor in tensors.values())


def test_the_forward_pass_keeps_little():
    """Beside its arguments, one state per block: no matrix of Q × Q, no state per step."""
    tensors = make(64 * CHUNK, batch=1, heads=2, width=16, groups=1, states=32, dtype=torch.float32)
    for name in ("D", "z", "delta_bias"):
        del tensors[name]
    given = {tensor.untyped_storage().data_ptr() for tensor in tensors.values()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        memory = tensor.untyped_storage()
        if memory.data_ptr() not in given:
            kept[memory.data_ptr()] = memory.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run("torch")(**{name: tensor.requires_grad_() for name, tensor in tensors.items()})
    assert sum(kept.values()) <= tensors["x"].numel() * 4 / 4


BAD = [
    ({"x": torch.zeros(2, 5, 6)}, r"x must have shape \(B, L, H, P\); got \(2, 5, 6\)"),
    ({"x": torch.zeros(2, 0, 6, 3)}, r"x must have shape \(B, L, H, P\) without an empty axis; got \(2, 0, 6, 3\)"),
    ({"x": torch.zeros(2, 5, 6, 3).int()}, r"x must have a dtype of float16, .*; got int32"),
    ({"A": torch.zeros(6) + 0j}, r"A must have a dtype of float16, .*float64; got complex64"),
    ({"x": np.zeros((2, 5, 6, 3))}, r"x must be a torch.Tensor; got ndarray"),
    ({"delta": torch.zeros(2, 4, 6)}, r"delta must have shape \(B, L, H\) = \(2, 5, 6\); got \(2, 4, 6\)"),
    ({"delta": torch.full((2, 5, 6), -2.0), "delta_bias": None}, r"delta must be >= 0, .*delta_softplus=True; got -2"),
    ({"delta": torch.full((2, 5, 6), -2.0)}, r"delta \+ delta_bias must be >= 0"),
    ({"A": torch.zeros(5)}, r"A must have shape \(H,\) = \(6,\); got \(5,\)"),
    ({"B": torch.zeros(2, 5, 5)}, r"B must have shape \(B, L, G, N\); got \(2, 5, 5\)"),
    ({"C": torch.zeros(2, 5, 3, 5)}, r"C must have shape \(B, L, G, N\) = \(2, 5, 2, 5\); got \(2, 5, 3, 5\)"),
    ({"B": torch.zeros(2, 5, 4, 5), "C": torch.zeros(2, 5, 4, 5)}, r"x: .*heads must be a multiple of G = 4; got 6"),
    ({"D": torch.zeros(6, 2)}, r"D must have shape \(H, P\) = \(6, 3\); got \(6, 2\)"),
    ({"z": torch.zeros(2, 5, 6, 2)}, r"z must have shape \(B, L, H, P\) = \(2, 5, 6, 3\); got"),
    ({"delta_bias": torch.zeros(6, 1)}, r"delta_bias must have shape \(H,\); got \(6, 1\)"),
    ({"initial_state": torch.ones(2, 6, 5, 3)}, r"initial_state must have shape \(B, H, P, N\) = \(2, 6, 3, 5\); got"),
    ({"initial_state": torch.zeros(2, 6, 3, 5).int()}, r"initial_state must have a dtype of .*; got int32"),
    ({"A": torch.zeros(6, device="meta")}, r"A must be on x's device, cpu; got meta"),
    ({"chunk_size": 0}, r"chunk_size must be an integer >= 1; got 0"),
    ({"chunk_size": 64.0}, r"chunk_size must be an integer >= 1; got 64.0"),
    ({"backend": "fast"}, r"backend must be one of 'auto', 'reference', 'torch', 'cuda'; got 'fast'"),
    ({"cu_seqlens": torch.tensor([0, 5])}, r"cu_seqlens must come with tensors of batch size 1.*; got batch 2"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        ssd(**make(5) | change)


def test_packed_sequences_need_one_state_each():
    with pytest.raises(ValueError, match=r"initial_state must have shape \(S, H, P, N\) = \(2, 6, 3, 5\); got"):
        ssd(**make(5, batch=1), cu_seqlens=torch.tensor([0, 2, 5]))


def test_a_bad_step_is_named():
    tensors = at(make(5), 0)
    with pytest.raises(ValueError, match=r"state must have shape \(B, H, P, N\) = \(2, 6, 3, 5\); got \(2, 6, 3, 4\)"):
        ssd_step(**tensors, state=torch.zeros(2, 6, 3, 4))
    with pytest.raises(ValueError, match=r"delta must have shape \(B, H\) = \(2, 6\); got \(2, 5\)"):
        ssd_step(**tensors | {"delta": torch.zeros(2, 5)}, state=torch.zeros(2, 6, 3, 5))


def test_gpu_kernels_are_refused_to_tensors_elsewhere():
    with pytest.raises(ValueError, match='backend="cuda" must be given tensors on a CUDA device; got cpu'):
        ssd(**make(5), backend="cuda")


def test_nan_and_infinity_stay_visible():
    """Whatever the chunked form does for speed, it hides no broken input."""
    for name, value in (("x", math.nan), ("delta", math.nan), ("B", math.inf)):
        tensors = make(2 * CHUNK)
        tensors[name][0, 3] = value
        y, state = run("torch")(**tensors)
        assert not y[0, 3].isfinite().any()
        assert not state[0].isfinite().all()
        assert y[1].isfinite().all()
