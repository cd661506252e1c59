"""The gated delta rule and its special cases: printed formulas, chunks against the loop, the field's known bugs."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import DOUBLE, SINGLE, assert_close, assert_same, evaluate, lengths, strided
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ssm_kit.ops import (
    delta_rule,
    delta_rule_step,
    gated_delta_rule,
    gated_delta_rule_step,
    linear_attention,
    linear_attention_step,
)
from ssm_kit.ops.gated_delta import chunked

OPERATORS = {
    gated_delta_rule: (gated_delta_rule_step, ("g", "beta")),
    delta_rule: (delta_rule_step, ("beta",)),
    linear_attention: (linear_attention_step, ("g",)),
}
CHUNK = chunked.CHUNK


def inputs(
    length: int = 7,
    *,
    operator=gated_delta_rule,
    batch: int = 2,
    heads: int = 2,
    shared: int = 1,
    K: int = 3,
    V: int = 5,
    gates: float = 1.0,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Random tensors for an operator, with keys of length one and an initial state."""
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    steps = (batch, length, heads * shared)
    tensors = {
        "q": draw(batch, length, heads, K),
        "k": torch.nn.functional.normalize(draw(batch, length, heads, K), dim=-1),
        "v": draw(*steps, V),
        "g": -gates * torch.nn.functional.softplus(draw(*steps)),
        "beta": torch.sigmoid(draw(*steps)),
        "initial_state": draw(batch, heads * shared, K, V),
    }
    wanted = ("q", "k", "v", *OPERATORS[operator][1], "initial_state")
    return {name: tensors[name].to(dtype) for name in wanted}


def both(operator, backend: str = "torch", **options):
    """The operator as a function of keyword tensors that returns (outputs, final state)."""
    return partial(operator, backend=backend, return_final_state=True, **options)


def compare(operator, tensors: dict[str, Tensor], tolerances: dict[str, float], **options) -> None:
    assert_same(both(operator, **options), both(operator, "reference", **options), tensors, **tolerances)


def cut(tensors: dict[str, Tensor], start: int | None, stop: int | None) -> dict[str, Tensor]:
    """The steps from start to stop, without the initial state."""
    return {name: tensor[:, start:stop] for name, tensor in tensors.items() if name != "initial_state"}


# ---------------------------------------------------------------------------------------------------------------------
# What the papers print


def printed(tensors: dict[str, Tensor], scale: float) -> tuple[Tensor, Tensor]:
    """Gated DeltaNet, eq. 10, matrix by matrix: S (V, K), S ← S (α (I − β k kᵀ)) + β v kᵀ, o = S q."""
    S = tensors["initial_state"].mT.clone()
    batch, length, heads, K = tensors["k"].shape
    o = torch.empty_like(tensors["v"])
    for b in range(batch):
        for h in range(heads):
            for t in range(length):
                q, k, v, g, beta = (tensors[name][b, t, h] for name in ("q", "k", "v", "g", "beta"))
                transition = g.exp() * (torch.eye(K, dtype=k.dtype) - beta * torch.outer(k, k))
                S[b, h] = S[b, h] @ transition + beta * torch.outer(v, k)
                o[b, t, h] = scale * S[b, h] @ q
    return o, S.mT


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_equals_the_printed_formula(backend):
    tensors = inputs(2 * CHUNK + 3)
    o, state = both(gated_delta_rule, backend)(**tensors)
    expected = printed(tensors, scale=3**-0.5)
    assert_close(o, expected[0], 1e-13)
    assert_close(state, expected[1], 1e-13)


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_is_not_the_rule_that_corrects_before_it_fades(backend):
    """The rule S ← αS − β (S k − v) kᵀ, seen in lessons, lacks (1 − α) β S k kᵀ; ours has it."""
    tensors = inputs(1, heads=1, batch=1)
    k, v, S = (tensors["k"][0, 0, 0], tensors["v"][0, 0, 0], tensors["initial_state"][0, 0].mT)
    alpha, beta = tensors["g"].exp().item(), tensors["beta"].item()
    wrong = alpha * S - beta * torch.outer(S @ k - v, k)
    lacking = (1 - alpha) * beta * torch.outer(S @ k, k)
    _, state = both(gated_delta_rule, backend)(**tensors)
    assert_close(state[0, 0].mT - wrong, lacking, 1e-12)
    assert lacking.abs().max() > 0.01 * S.abs().max()


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_full_correction_leaves_nothing_of_the_old_value(backend):
    """At β = 1 the memory holds exactly v_t under the unit key k_t, however much had faded before."""
    tensors = inputs(CHUNK + 5, gates=3.0)
    tensors["beta"].fill_(1.0)
    o, _ = both(gated_delta_rule, backend, scale=1.0)(**(tensors | {"q": tensors["k"]}))
    assert_close(o, tensors["v"], 1e-13)


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_linear_attention_is_masked_attention(backend):
    """O = (Q Kᵀ ∘ Γ) V with Γ_ij = α_{j+1} ⋯ α_i for j <= i: attention without softmax."""
    tensors = inputs(50, operator=linear_attention)
    del tensors["initial_state"]
    total = tensors["g"].cumsum(1)
    gamma = (total[:, :, None] - total[:, None]).permute(0, 3, 1, 2).exp().tril()
    scores = torch.einsum("bihk,bjhk->bhij", tensors["q"], tensors["k"]) * gamma
    expected = torch.einsum("bhij,bjhv->bihv", scores, tensors["v"])
    assert_close(linear_attention(**tensors, scale=1.0, backend=backend), expected, 1e-12)


def test_special_cases():
    """No decay is g = 0; no correction is a β that does nothing in the limit of small β (v / β written)."""
    tensors = inputs(40)
    g = torch.zeros_like(tensors.pop("g"))
    assert_close(both(delta_rule)(**tensors)[1], both(gated_delta_rule)(**tensors, g=g)[1], 1e-15)
    tensors, small = inputs(40, operator=linear_attention), 1e-9
    shrunk = tensors | {"v": tensors["v"] / small, "beta": torch.full_like(tensors["g"], small)}
    assert_close(both(linear_attention)(**tensors)[0], both(gated_delta_rule)(**shrunk)[0], 1e-6)
    plain = {name: tensor for name, tensor in tensors.items() if name != "g"}
    zeros = torch.zeros_like(tensors["g"])
    assert_close(linear_attention(**plain), linear_attention(**plain, g=zeros), 1e-15)


# ---------------------------------------------------------------------------------------------------------------------
# Chunks against the loop


@settings(max_examples=40)
@given(
    operator=st.sampled_from(list(OPERATORS)),
    length=st.sampled_from(lengths(CHUNK)),
    batch=st.integers(1, 2),
    heads=st.sampled_from([1, 2, 3]),
    shared=st.sampled_from([1, 2, 3]),
    K=st.sampled_from([3, 4, 7]),
    V=st.sampled_from([1, 2, 5]),
    gates=st.sampled_from([1e-2, 1e-1, 1.0, 1e1]),
    reorder=st.booleans(),
    seed=st.integers(0, 2**16),
)
@pytest.mark.parametrize(("dtype", "tolerances"), [(torch.float64, DOUBLE), (torch.float32, SINGLE)])
def test_chunks_equal_the_loop(dtype, tolerances, operator, length, reorder, **sizes):
    """Catches NaN when the length is no multiple of the chunk (mamba #352, #353), states summed over a wrong axis
    (transformers #34817, #47246), exp of a sum that overflows (fla #77, #99, #736), kernels that ignore strides."""
    tensors = inputs(length, operator=operator, dtype=dtype, **sizes)
    if reorder:
        tensors = {name: strided(tensor) for name, tensor in tensors.items()}
    compare(operator, tensors, tolerances)


@pytest.mark.parametrize(("dtype", "tolerances"), [(torch.float64, DOUBLE), (torch.float32, SINGLE)])
@pytest.mark.parametrize("operator", OPERATORS)
def test_keys_in_one_direction(operator, dtype, tolerances):
    """K = 1: what each correction erases, the next erases again, and little is left of the initial state."""
    for seed in range(10):
        compare(operator, inputs(101, operator=operator, K=1, gates=1e-2, dtype=dtype, seed=seed), tolerances)


@pytest.mark.parametrize("operator", OPERATORS)
def test_many_spans(operator):
    """Several spans of many chunks, with a state from before (transformers #34817: wrong only from three chunks on)."""
    compare(operator, inputs(2 * chunked.SPAN + CHUNK + 1, operator=operator, batch=1, heads=1), DOUBLE)


@pytest.mark.parametrize(("dtype", "tolerances"), [(torch.float64, DOUBLE), (torch.float32, SINGLE)])
@pytest.mark.parametrize("gate", [0.0, -1e-6, -50.0, -1e4, -math.inf])
def test_extreme_gates(gate, dtype, tolerances):
    """Memories that never fade, or are wiped out every third step (fla #77, #99, #736); β of exactly 0 and 1."""
    tensors = inputs(2 * CHUNK + 5, dtype=dtype)
    tensors["g"][:, 1::3] = gate
    tensors["beta"][:, ::4], tensors["beta"][:, 1::4] = 0.0, 1.0
    compare(gated_delta_rule, tensors, tolerances)
    compare(linear_attention, {name: tensor for name, tensor in tensors.items() if name != "beta"}, tolerances)


@pytest.mark.parametrize(("dtype", "tolerances"), [(torch.float64, DOUBLE), (torch.float32, SINGLE)])
@pytest.mark.parametrize("size", [1e-3, 1.4, 3.0])
def test_keys_of_any_length(size, dtype, tolerances):
    """Keys that nobody has normalised; from |k|² β > 2 on the memory itself grows, and the two still agree."""
    tensors = inputs(CHUNK + 9, dtype=dtype, K=5)
    tensors["k"] = tensors["k"] * size
    compare(gated_delta_rule, tensors, tolerances)
    compare(gated_delta_rule, tensors, tolerances, qk_l2norm=True)


def test_options():
    tensors = inputs(CHUNK + 1)
    compare(gated_delta_rule, tensors, DOUBLE, scale=-0.7, qk_l2norm=True)
    compare(delta_rule, {name: x for name, x in tensors.items() if name != "g"}, DOUBLE, scale=2, qk_l2norm=True)
    unit = {name: tensors[name] / (tensors[name].square().sum(-1, keepdim=True) + 1e-6).sqrt() for name in "qk"}
    assert_close(gated_delta_rule(**tensors, qk_l2norm=True), gated_delta_rule(**(tensors | unit)), 1e-14)
    assert_close(gated_delta_rule(**tensors), gated_delta_rule(**tensors, scale=3**-0.5), 1e-15)


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_value_heads_share_neighbouring_keys(backend):
    """`repeat` instead of `repeat_interleave` (transformers PR #37533), visible only for 1 < H < HV."""
    tensors = inputs(9, heads=2, shared=3)
    o = gated_delta_rule(**tensors, backend=backend)
    for head in range(6):
        alone = {name: tensors[name][:, :, head // 3 : head // 3 + 1] for name in "qk"}
        alone |= {name: tensors[name][:, :, head : head + 1] for name in ("v", "g", "beta")}
        alone["initial_state"] = tensors["initial_state"][:, head : head + 1]
        assert_close(o[:, :, head : head + 1], gated_delta_rule(**alone, backend="reference"), 1e-13)


def test_long_sequences_in_single_precision():
    """Rounding does not grow with the length: 4000 steps in float32 against float64."""
    tensors = inputs(4000, batch=1, heads=1, gates=1e-2)
    o, state = both(gated_delta_rule)(**{name: tensor.float() for name, tensor in tensors.items()})
    expected = both(gated_delta_rule, "reference")(**tensors)
    assert_close(o, expected[0].float(), 1e-5)
    assert_close(state, expected[1].float(), 1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# The same sequence in pieces


@settings(max_examples=15)
@given(
    operator=st.sampled_from(list(OPERATORS)),
    length=st.sampled_from([2, CHUNK, CHUNK + 1, 2 * CHUNK + 7]),
    where=st.floats(0, 1),
    backend=st.sampled_from(["reference", "torch"]),
)
def test_split_anywhere(operator, length, where, backend):
    """The first part's final state is the second part's initial state; gradients flow through it."""
    place = 1 + round(where * (length - 2))

    def in_two(initial_state, **steps):
        run = both(operator, backend)
        first, state = run(**cut(steps, None, place), initial_state=initial_state)
        second, state = run(**cut(steps, place, None), initial_state=state)
        return torch.cat([first, second], dim=1), state

    assert_same(in_two, both(operator, backend), inputs(length, operator=operator, shared=2), **DOUBLE)


@pytest.mark.parametrize("operator", OPERATORS)
def test_step_by_step(operator):
    """Decoding after a prefill of any length equals the whole (transformers #46190), and leaves its state alone."""
    tensors = inputs(CHUNK + 3, operator=operator, shared=2)
    whole, last = both(operator)(**tensors)
    step = OPERATORS[operator][0]
    for prefill in range(whole.shape[1]):
        state = tensors["initial_state"]
        if prefill:
            _, state = both(operator)(**cut(tensors, None, prefill), initial_state=state)
        before = state.clone()
        o, following = step(**{name: x[:, 0] for name, x in cut(tensors, prefill, prefill + 1).items()}, state=state)
        assert_close(o, whole[:, prefill], 1e-12)
        assert torch.equal(state, before)
    assert_close(following, last, 1e-12)


def test_steps_take_the_operators_options():
    tensors = inputs(1)
    o, state = both(gated_delta_rule, qk_l2norm=True, scale=0.3)(**tensors)
    now = {name: tensor[:, 0] for name, tensor in cut(tensors, None, None).items()}
    found = gated_delta_rule_step(**now, state=tensors["initial_state"], qk_l2norm=True, scale=0.3)
    assert_close(found[0], o[:, 0], 1e-14)
    assert_close(found[1], state, 1e-14)


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("operator", OPERATORS)
def test_packed_sequences(operator, backend):
    """cu_seqlens equals separate sequences, in values and in every gradient."""
    sizes = [1, CHUNK - 1, CHUNK, 5, CHUNK + 1]
    tensors = inputs(sum(sizes), operator=operator, batch=1, shared=2)
    tensors["initial_state"] = torch.randn(len(sizes), *tensors["initial_state"].shape[1:], dtype=torch.float64)

    def separately(initial_state, **steps):
        pieces = zip(*(tensor.split(sizes, dim=1) for tensor in steps.values()), initial_state.split(1), strict=True)
        results = [
            both(operator, "reference")(**dict(zip([*steps, "initial_state"], piece, strict=True))) for piece in pieces
        ]
        return torch.cat([o for o, _ in results], dim=1), torch.cat([state for _, state in results])

    bounds = torch.tensor([0, *sizes]).cumsum(0).to(torch.int32)
    assert_same(both(operator, backend, cu_seqlens=bounds), separately, tensors, **DOUBLE)


def test_what_follows_changes_nothing_before():
    """Steps after the loss leave outputs and gradients alone (mamba #368: padding changed the decay backwards)."""
    short, length = inputs(CHUNK + 7), CHUNK + 7
    padded = inputs(2 * CHUNK + 1, seed=1)
    padded |= {name: torch.cat([x, padded[name][:, length:]], dim=1) for name, x in cut(short, None, None).items()}
    padded["initial_state"] = short["initial_state"]

    found = evaluate(lambda **t: gated_delta_rule(**t)[:, :length], padded)
    wanted = evaluate(gated_delta_rule, short)
    for name, expected in wanted.items():
        steps = found[name] if "state" in name else found[name][:, :length]
        assert_close(steps, expected, 1e-12, name)
        assert "state" in name or not found[name][:, length:].any()


# ---------------------------------------------------------------------------------------------------------------------
# Gradients, memory, dtypes


@pytest.mark.parametrize("operator", OPERATORS)
def test_gradients_of_the_definition(operator):
    tensors = inputs(3, operator=operator, batch=1, heads=1, shared=2, K=2, V=2)
    leaves = [tensor.requires_grad_() for tensor in tensors.values()]

    options = {} if operator is linear_attention else {"qk_l2norm": True}

    def function(*values):
        return both(operator, "reference", **options)(**dict(zip(tensors, values, strict=True)))

    assert gradcheck(function, leaves)
    assert gradgradcheck(function, leaves)


def test_gradients_of_the_chunks():
    tensors = inputs(CHUNK + 1, batch=1, heads=1, K=2, V=1)
    leaves = [tensor.requires_grad_() for tensor in tensors.values()]

    def function(*values):
        return both(gated_delta_rule)(**dict(zip(tensors, values, strict=True)))

    assert gradcheck(function, leaves)


def test_second_derivatives_need_the_definition():
    """A loss that contains a gradient: refused by the chunks, rather than dropped without a word."""
    tensors = {name: tensor.requires_grad_() for name, tensor in inputs(3).items()}
    with pytest.raises(RuntimeError, match="create_graph=True"):
        torch.autograd.grad(gated_delta_rule(**tensors).sum(), tensors["k"], create_graph=True)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_every_input_has_a_gradient(operator, backend):
    """A fallback once had no input gradient, silently (mamba-ssm-macos #7)."""
    for name, gradient in evaluate(both(operator, backend), inputs(CHUNK + 5, operator=operator)).items():
        assert gradient.abs().min() > 0, name


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_twice_is_the_same(backend):
    """Two forward and two backward passes, bit for bit; inputs are left as they are (transformers PR #29563)."""
    tensors = {name: tensor.requires_grad_() for name, tensor in inputs(CHUNK + 5).items()}
    copies = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    first, second = (both(gated_delta_rule, backend)(**tensors) for _ in range(2))
    loss = first[0].square().sum() + first[1].sum()
    gradients = [torch.autograd.grad(loss, list(tensors.values()), retain_graph=True) for _ in range(2)]
    assert all(map(torch.equal, first, second))
    assert all(map(torch.equal, *gradients))
    assert all(torch.equal(tensors[name], copies[name]) for name in tensors)


class Largest(TorchDispatchMode):
    """Remembers the number of elements in the largest tensor that any operation has made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.elements = max([self.elements, *(x.numel() for x in tree_leaves(result) if isinstance(x, Tensor))])
        return result


def test_memory_stays_near_the_inputs():
    """Broadcast-then-sum once made 4 GiB (transformers PR #48978): nothing here exceeds the largest input, and what
    is kept for the backward pass are the inputs and one state per span."""
    tensors = inputs(4 * chunked.SPAN, batch=1, K=16, V=16, dtype=torch.float32)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with Largest() as largest, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        evaluate(both(gated_delta_rule), tensors)
    assert largest.elements == tensors["q"].numel()
    assert sum(kept.values()) <= sum(x.numel() for x in tensors.values()) + 3 * tensors["initial_state"].numel()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_half_precision(dtype, backend):
    """Computed in float32 and rounded once; the state stays float32, gradients return in the dtype of their input."""
    tensors = inputs(CHUNK + 3, dtype=dtype)
    wide = {name: tensor.float() for name, tensor in tensors.items()}
    o, state = both(gated_delta_rule, backend)(**tensors)
    assert (o.dtype, state.dtype) == (dtype, torch.float32)
    expected = both(gated_delta_rule, backend)(**wide)
    assert torch.equal(o, expected[0].to(dtype))
    assert torch.equal(state, expected[1])
    found, wanted = (evaluate(both(gated_delta_rule, backend), given) for given in (tensors, wide))
    for name in wanted:
        assert_close(found[name].float(), wanted[name], 4 * torch.finfo(dtype).eps, name)


def test_mixed_dtypes_take_the_widest():
    tensors = inputs(5, dtype=torch.bfloat16)
    tensors["initial_state"] = tensors["initial_state"].double()
    o, state = both(gated_delta_rule)(**tensors)
    assert (o.dtype, state.dtype) == (torch.bfloat16, torch.float64)


def test_autocast_lowers_nothing():
    """Autocast must not compute the chunks in half precision, neither forwards nor backwards."""
    tensors = inputs(CHUNK + 3, dtype=torch.float32)
    expected = evaluate(both(gated_delta_rule), tensors)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = evaluate(both(gated_delta_rule), tensors)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


# ---------------------------------------------------------------------------------------------------------------------
# The field's own functions, and arguments that do not fit


@pytest.mark.parametrize("name", ["torch_chunk_gated_delta_rule", "torch_recurrent_gated_delta_rule"])
@pytest.mark.parametrize("qk_l2norm", [False, True])
def test_equals_transformers(name, qk_l2norm):
    """Qwen3-Next's own functions, which compute in float32, over several of their chunks."""
    from transformers.models.qwen3_next import modeling_qwen3_next

    peer = getattr(modeling_qwen3_next, name)
    tensors = inputs(150, heads=2, shared=2, K=8, V=6, dtype=torch.float32)

    def theirs(q, k, v, g, beta, initial_state):
        options = {"output_final_state": True, "use_qk_l2norm_in_kernel": qk_l2norm}
        return peer(q, k, v, g=g, beta=beta, initial_state=initial_state, **options)

    assert_same(both(gated_delta_rule, qk_l2norm=qk_l2norm), theirs, tensors, **SINGLE)


@pytest.mark.gpu
def test_gpu(monkeypatch):
    """The same on a GPU, where auto says once that the kernels do not take float64."""
    tensors = {name: tensor.cuda() for name, tensor in inputs(3 * CHUNK + 1, shared=2).items()}
    compare(gated_delta_rule, tensors, DOUBLE)
    monkeypatch.setattr("ssm_kit.ops._dispatch._warned", set())
    with pytest.warns(RuntimeWarning, match="gated_delta_rule has no GPU kernel for this call"):
        gated_delta_rule(**tensors)


def changed(**changes):
    return {**inputs(6, shared=2), **changes}


ones = partial(torch.ones, dtype=torch.float64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (changed(q=ones(2, 6, 3)), r"^q must have shape \(B, L, H, K\); got \(2, 6, 3\)"),
        (changed(k=ones(2, 6, 2, 4)), r"^k must have shape \(B, L, H, K\) = \(2, 6, 2, 3\); got \(2, 6, 2, 4\)"),
        (changed(v=ones(2, 5, 4, 5)), r"^v must have shape .* got \(2, 5, 4, 5\)"),
        (changed(g=ones(2, 6, 2)), r"^g must have shape \(B, L, HV\) = \(2, 6, 4\); got \(2, 6, 2\)"),
        (changed(beta=ones(2, 6, 4, 1)), r"^beta must have shape \(B, L, HV\)"),
        (changed(v=ones(2, 6, 3, 5), g=ones(2, 6, 3), beta=ones(2, 6, 3)), r"^the heads HV of v must be a multiple"),
        (changed(initial_state=ones(2, 4, 5, 3)), r"^initial_state must have shape \(B, HV, K, V\) = \(2, 4, 3, 5\)"),
        (changed(q=ones(2, 0, 2, 3)), r"^q must have shape .* without an empty axis"),
        (changed(q=torch.ones(2, 6, 2, 3, dtype=torch.int64)), r"^q must have a dtype of"),
        (changed(g=torch.ones(2, 6, 4, dtype=torch.complex128)), r"^g must have a dtype of"),
        (changed(v=[1.0]), r"^v must be a torch.Tensor; got list"),
        (changed(k=None), r"^k must be a torch.Tensor; got None"),
        (changed(g=None), r"^g must be a torch.Tensor; got None"),
        (changed(beta=None), r"^beta must be a torch.Tensor; got None"),
        (changed(beta=torch.ones(2, 6, 4, device="meta")), r"^beta must be on q's device"),
        (changed(scale=math.nan), r"^scale must be None or a finite number; got nan"),
        (changed(scale="1"), r"^scale must be None or a finite number; got '1'"),
        (changed(backend="triton"), r"^backend must be one of"),
        (changed(cu_seqlens=torch.tensor([0, 6])), r"^cu_seqlens must come with tensors of batch size 1"),
    ],
)
def test_arguments_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        gated_delta_rule(**arguments)


def test_packed_states_have_one_row_per_sequence():
    tensors = inputs(6, batch=1)
    with pytest.raises(ValueError, match=r"^initial_state must have shape \(S, HV, K, V\) = \(2, 2, 3, 5\)"):
        gated_delta_rule(**tensors, cu_seqlens=torch.tensor([0, 2, 6]))


@pytest.mark.parametrize("operator", OPERATORS)
def test_steps_refuse_what_does_not_fit(operator):
    step = OPERATORS[operator][0]
    tensors = {name: tensor[:, 0] for name, tensor in cut(inputs(1, operator=operator), None, None).items()}
    with pytest.raises(ValueError, match=r"^state must be a torch.Tensor; got None"):
        step(**tensors, state=None)
    with pytest.raises(ValueError, match=r"^state must have shape \(B, HV, K, V\) = \(2, 2, 3, 5\)"):
        step(**tensors, state=ones(2, 2, 5, 3))
    with pytest.raises(ValueError, match=r"^q must have shape \(B, H, K\)"):
        step(**(tensors | {"q": ones(2, 1, 2, 3)}), state=ones(2, 2, 3, 5))


def test_kernels_want_a_gpu():
    with pytest.raises(ValueError, match=r'^backend="cuda" must be given tensors on a CUDA device; got cpu'):
        gated_delta_rule(**inputs(), backend="cuda")
