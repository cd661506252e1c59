"""The stack computes what its config says, remembers what it must, and refuses what it cannot do."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import BLOCKS, VOCABULARY, build, config, random_ids
from torch import nn

from ssm_kit import cost
from ssm_kit.layers import Mamba, Mamba2
from ssm_kit.models import Cache, LanguageModel


def close(a, b, tolerance=1e-5):
    assert (a - b).abs().max() <= tolerance * max(1.0, b.abs().max().item())


# What it computes


@torch.no_grad()
def test_the_stack_by_hand():
    model = build("M-", tied_head=False, embedding_scale=4.0, logit_softcap=2.0, norm_eps=1e-3)
    ids = random_ids(2, 5)

    def norm(x, weight):
        return x / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt() * weight

    x = 4 * model.embeddings.weight[ids]
    for block in model.layers:
        x = x + block.mixer(norm(x, block.norm.weight))[0]
    logits = norm(x, model.norm_f.weight) @ model.lm_head.weight.T
    close(model(ids)[0], 2 * torch.tanh(logits / 2))


@torch.no_grad()
def test_zero_centered_norms():
    plain, centered = build("M-"), build("M-", zero_centered_norm=True)
    weights = plain.state_dict()
    for name in weights:
        if name.split(".")[-2] in ("norm", "norm_f") and "mixer" not in name:
            weights[name] = weights[name] - 1
    centered.load_state_dict(weights)
    ids = random_ids(2, 5)
    close(centered(ids)[0], plain(ids)[0])


def test_a_tied_head_has_no_weights_of_its_own():
    tied, free = build("M", tied_head=True), build("M")
    assert set(free.state_dict()) - set(tied.state_dict()) == {"lm_head.weight"}
    close(tied.head(torch.eye(16)), tied.embeddings.weight.T)


ALL_LAYERS = ["S-M-", "*-L-", "4D", "KERE", "G-SZMZ"]


@pytest.mark.parametrize("pattern", ALL_LAYERS)
def test_causality(pattern):
    model, ids = build(pattern), random_ids(2, 9)
    changed = ids.clone()
    changed[:, 5] = (ids[:, 5] + 1) % VOCABULARY
    with torch.no_grad():
        before, after = model(ids)[0], model(changed)[0]
    close(before[:, :5], after[:, :5])  # not equal to the last bit: S4 goes through an FFT
    assert (before[:, 5] - after[:, 5]).abs().max() > 0.1


# Shared attention


@torch.no_grad()
def test_shared_attention_by_hand():
    """Zamba: what the shared block says of [x, embeddings] is added to the mixer's input, not to the stream."""
    model, ids = build("MZ-Z"), random_ids(2, 7)
    x = embeddings = model.embeddings.weight[ids]
    calls = iter(range(2))
    for kind, block in zip("MZ-Z", model.layers, strict=True):
        heard = 0
        if kind == "Z":
            heard, _ = model.shared["Z"](x, embeddings=embeddings, call=next(calls))
        x = x + block.mixer(block.norm(x + heard))[0]
    close(model(ids)[0], model.head(model.norm_f(x)))


def test_shared_weights_are_counted_once():
    once, twice = build("MZ-"), build("MZ-Z")
    more = {name for name, _ in twice.named_parameters()} - {name for name, _ in once.named_parameters()}
    assert {name.split(".mixer.")[0] for name in more} == {
        "layers.3",
        "layers.3.norm.weight",
        "shared.Z.linear.1.weight",
    }
    assert set(twice.state_dict()) == {name for name, _ in twice.named_parameters()}


@torch.no_grad()
def test_every_call_has_a_cache_of_its_own():
    length, heads, head_dim = 5, 4, 2 * 16 // 4
    for pattern, calls in [("MZ-", 1), ("MZ-Z", 2), ("ZZZ", 3)]:
        cache = build(pattern)(random_ids(1, length))[1]
        assert cache.kv_bytes == cost.kv_cache_bytes(calls, heads, head_dim, length, dtype_bytes=4)


@torch.no_grad()
def test_two_shared_attentions_in_turn():
    """Zamba2 has two sets of shared weights: here these are two kinds of block."""
    settings = BLOCKS["Z"]
    model = build("aBaB", blocks={"a": settings, "B": settings})
    assert set(model.shared) == {"a", "B"}
    assert [block.call for block in model.layers] == [0, 0, 1, 1]
    assert not torch.equal(model.shared["a"].self_attn.q_proj.weight, model.shared["B"].self_attn.q_proj.weight)


def test_a_copy_shares_with_itself_only():
    model = build("MZ-Z")
    ids, logits = random_ids(2, 5), model(random_ids(2, 5))[0]
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.shared["Z"].self_attn.v_proj.weight.zero_()
    assert torch.equal(model(ids)[0], logits)
    assert not torch.equal(twin(ids)[0], logits)


# Cache


def steps(model, ids, cache=None):
    logits = []
    for token in ids.unbind(1):
        one, cache = model.step(token, cache)
        logits.append(one)
    return torch.stack(logits, dim=1), cache


def nested_close(a, b, tolerance):
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype
        close(a, b, tolerance)
    elif a is not None:
        for x, y in zip(a, b, strict=True):
            nested_close(x, y, tolerance)


@torch.no_grad()
@pytest.mark.parametrize("cut", [1, 3, 8])
@pytest.mark.parametrize("pattern", ALL_LAYERS)
def test_pieces_and_steps_are_the_whole(pattern, cut):
    model, ids = build(pattern).double(), random_ids(2, 9)
    whole, end = model(ids)
    first, cache = model(ids[:, :cut])
    assert whole.dtype == torch.float64
    for go_on in (model, lambda *arguments: steps(model, *arguments)):
        second, after = go_on(ids[:, cut:], cache)
        close(torch.cat([first, second], dim=1), whole, 1e-11)
        nested_close(after.states, end.states, 1e-11)


@torch.no_grad()
@settings(max_examples=20)
@given(st.text("".join(BLOCKS), min_size=1, max_size=5), st.lists(st.integers(1, 4), min_size=2, max_size=4))
def test_any_row_of_blocks_in_any_pieces(pattern, lengths):
    model, ids = build(pattern).double(), random_ids(2, sum(lengths))
    logits, cache = [], None
    for piece in ids.split(lengths, dim=1):
        part, cache = steps(model, piece, cache) if piece.shape[1] == 1 else model(piece, cache)
        logits.append(part)
    close(torch.cat(logits, dim=1), model(ids)[0], 1e-11)


@torch.no_grad()
def test_from_an_empty_cache(hybrid):
    ids = random_ids(2, 6)
    for cache in (None, hybrid.init_cache(2)):
        close(steps(hybrid, ids, cache)[0], hybrid(ids)[0])
        assert torch.equal(hybrid(ids, cache)[0], hybrid(ids)[0])


@torch.no_grad()
def test_an_old_cache_stays_valid(hybrid):
    ids = random_ids(2, 9)
    cache = hybrid(ids[:, :4])[1]
    once = hybrid(ids[:, 4:], cache)[0]
    hybrid.step(ids[:, 5], cache)
    assert torch.equal(hybrid(ids[:, 4:], cache)[0], once)


@torch.no_grad()
def test_rows_of_a_batch_do_not_meet(hybrid):
    ids = random_ids(3, 9)
    logits, cache = hybrid(ids)
    after, _ = hybrid.step(ids[:, 0], cache)
    for row in range(3):
        alone, own = hybrid(ids[row : row + 1])
        close(logits[row : row + 1], alone)
        close(after[row : row + 1], hybrid.step(ids[row : row + 1, 0], own)[0])


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length", [1, 20])
def test_bytes_are_those_of_the_cost_formulas(length, dtype):
    batch, width = 3, dtype.itemsize
    for pattern, kv, state, conv in [
        ("S-S", 0, cost.recurrent_state_bytes(2, 32, 4, 4), cost.conv_window_bytes(2, 32, 4, width)),
        ("MMM", 0, cost.recurrent_state_bytes(3, 32, 8, 4), cost.conv_window_bytes(3, 32 + 2 * 8, 4, width)),
        ("*-*-", cost.kv_cache_bytes(2, 2, 4, length, width), 0, 0),
        ("L", cost.kv_cache_bytes(1, 2, 8, length, width, window=3), 0, 0),  # of a window of 4, 3 are the past
    ]:
        cache = build(pattern).to(dtype)(random_ids(batch, length))[1]
        positions = 8 * sum(kind in "*L" for kind in pattern)
        assert cache.kv_bytes == batch * kv
        assert cache.nbytes == batch * (kv + state + conv + positions)
        assert cache.fixed_bytes == cache.nbytes - cache.kv_bytes


@torch.no_grad()
def test_an_empty_cache_holds_what_is_fixed(hybrid):
    empty, later = hybrid.init_cache(2), hybrid(random_ids(2, 9))[1]
    assert empty.kv_bytes == 0
    assert empty.nbytes == empty.fixed_bytes == later.fixed_bytes
    assert hybrid.init_cache(2, dtype=torch.float64).nbytes > empty.nbytes
    assert all(state.conv.is_meta for state in hybrid.init_cache(1, device="meta").states[:3:2])


# Precision, gradients, initial weights


def test_the_residual_stream_keeps_float32():
    """Every block adds little to a large stream: bfloat16 would round some of it away, block after block."""
    errors = {}
    for wide in (True, False):
        torch.manual_seed(0)
        model = LanguageModel(config("M-" * 8, residual_in_fp32=wide, tied_head=False))
        model.embeddings.weight.data.mul_(100)
        model, ids = model.to(torch.bfloat16), random_ids(4, 12)
        with torch.no_grad():
            logits, exact = model(ids)[0], model.float()(ids)[0]
        assert logits.dtype == torch.bfloat16
        errors[wide] = (logits - exact).norm() / exact.norm()
    assert errors[True] < 0.01
    assert errors[True] < 0.5 * errors[False]


def test_every_weight_learns():
    model, ids = build("S-M-*-L-GRK4DZEZE"), random_ids(6, 20)
    logits, _ = model(ids[:, :-1])
    nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
    idle = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert idle == []


def test_initial_weights():
    torch.manual_seed(0)
    deep = LanguageModel(config(16 * "S-M-", tied_head=False))
    assert deep.embeddings.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert deep.lm_head.weight.std().item() == pytest.approx(0.02, rel=0.1)
    for block, layer in ((0, Mamba(16, d_state=4)), (2, Mamba2(16, d_state=8, headdim=8))):
        ratio = deep.layers[block].mixer.out_proj.weight.std() / layer.out_proj.weight.std()
        assert ratio.item() == pytest.approx(1 / 8, rel=0.2)  # 64 blocks
        ratio = deep.layers[block].mixer.in_proj.weight.std() / layer.in_proj.weight.std()
        assert ratio.item() == pytest.approx(1, rel=0.2)


def test_names_of_the_public_checkpoints():
    names = set(build("MM", tied_head=False).state_dict())
    mixer = {"A_log", "D", "dt_bias", "conv1d.bias", "conv1d.weight"}
    mixer |= {f"{name}.weight" for name in ("in_proj", "norm", "out_proj")}
    blocks = {f"layers.{i}.{name}" for i in (0, 1) for name in ["norm.weight", *(f"mixer.{name}" for name in mixer)]}
    assert names == blocks | {"embeddings.weight", "norm_f.weight", "lm_head.weight"}


# Refusals


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([[1, 2]], "ids must be a tensor of int64 or int32; got list"),
        (torch.ones(1, 2), "ids must be a tensor of int64 or int32; got torch.float32"),
        (torch.ones(2, dtype=torch.int64), r"ids must have shape \(B, L\); got \(2,\)"),
        (torch.ones(2, 0, dtype=torch.int64), r"ids must have shape \(B, L\) without an empty axis; got \(2, 0\)"),
        (torch.tensor([[0, VOCABULARY]]), "ids must be from 0 to 31; got 0 to 32"),
        (torch.tensor([[-1, 2]]), "ids must be from 0 to 31; got -1 to 2"),
    ],
)
def test_ids_are_checked(hybrid, ids, message):
    with pytest.raises(ValueError, match=message):
        hybrid(ids)


def test_a_step_takes_one_token_per_row(hybrid):
    with pytest.raises(ValueError, match=r"ids must have shape \(B,\); got \(2, 1\)"):
        hybrid.step(random_ids(2, 1))


@torch.no_grad()
def test_a_foreign_cache_is_refused(hybrid):
    ids = random_ids(2, 4)
    cache = hybrid(ids)[1]
    with pytest.raises(ValueError, match="cache must be a Cache or None; got tuple"):
        hybrid(ids, cache.states)
    with pytest.raises(ValueError, match="cache must hold 8 states, one per block; got 7"):
        hybrid(ids, Cache(cache.states[:-1]))
    with pytest.raises(ValueError, match="state must be a Mamba2State or None; got MambaState"):
        hybrid(ids, Cache(cache.states[:2] + cache.states[:6]))
    with pytest.raises(ValueError, match="state must be a SharedBlockState or None; got MambaState"):
        build("Z")(ids, Cache(cache.states[:1]))
    with pytest.raises(ValueError, match=r"state.conv must have shape .* = \(1, 3, 32\); got \(2, 3, 32\)"):
        hybrid(ids[:1], cache)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("Mamba3", r"blocks\['X'\] must name one of .*Mamba2.*; got 'Mamba3'"),
        ("KVCache", r"blocks\['X'\] must name one of .*; got 'KVCache'"),
        ({"layer": "MLP"}, r"blocks\['X'\] must hold arguments of MLP: .*d_ff"),
        ({"layer": "MLP", "d_ff": 4, "dropout": 0.5}, r"blocks\['X'\] must hold arguments of MLP: .*dropout"),
        (
            {"layer": "Mamba", "shared": {"num_heads": 3}},
            r"blocks\['X'\] must hold arguments of SharedAttention: .*d_ff",
        ),
        ({"layer": "Attention", "num_heads": 3}, r"blocks\['X'\] must hold arguments of Attention: d_model must be"),
    ],
)
def test_a_block_must_be_a_layer(block, message):
    with pytest.raises(ValueError, match=message):
        LanguageModel(config("X", blocks=BLOCKS | {"X": block}))
