"""Attention: positions, windows, grouped heads, and Zamba's shared block."""

import pytest
import torch

from ssm_kit.layers import Attention, KVCache, SharedAttention
from ssm_kit.layers.attention import rotate

D_MODEL, LENGTH = 16, 12


def inputs(seed=0, length=LENGTH):
    return torch.randn(2, length, D_MODEL, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def build(*args, **options):
    torch.manual_seed(0)
    return Attention(D_MODEL, *args, **options).double()


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_rotation_is_a_complex_multiplication():
    heads = torch.randn(2, 3, LENGTH, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    positions = torch.arange(LENGTH).expand(2, -1) * 7
    turned = rotate(heads, positions, 100.0, 6)
    number = torch.complex(heads[..., :3], heads[..., 3:6])
    rates = 100.0 ** -(torch.arange(3, dtype=torch.float64) / 3)
    expected = number * torch.exp(1j * positions[:, None, :, None] * rates)
    close(turned[..., :3], expected.real)
    close(turned[..., 3:6], expected.imag)
    assert torch.equal(turned[..., 6:], heads[..., 6:])


@torch.no_grad()
def test_only_distances_matter():
    """A sequence that starts at position 1000 gives the same outputs, with rotary positions too."""
    layer = build(4, 2, rope=1e4)
    later = layer.init_state(2)._replace(position=torch.tensor([1000, 123456]))
    y, state = layer(inputs(), later)
    close(y, layer(inputs())[0])
    assert state.position.tolist() == [1000 + LENGTH, 123456 + LENGTH]


@torch.no_grad()
def test_order_matters_by_rotary_positions_alone():
    x = inputs()
    swapped = x[:, [1, 0, *range(2, LENGTH)]]
    for rope, same in ((None, True), (1e4, False)):
        layer = build(4, rope=rope)
        difference = (layer(x)[0] - layer(swapped)[0])[:, 2:].abs().max()
        assert (difference < 1e-12) == same


@pytest.mark.parametrize("window", [1, 2, 5, LENGTH, LENGTH + 3])
@torch.no_grad()
def test_a_window_ends_where_it_says(window):
    layer = build(4, 1, window=window)
    x = inputs().requires_grad_()
    with torch.enable_grad():
        layer(x)[0][:, -1].square().sum().backward()
    seen = x.grad.abs().sum(dim=(0, 2)) > 0
    assert seen.tolist() == [t > LENGTH - 1 - window for t in range(LENGTH)]


@torch.no_grad()
def test_a_window_wider_than_the_sequence_is_none():
    close(build(4, window=LENGTH)(inputs())[0], build(4)(inputs())[0])


@torch.no_grad()
def test_what_left_the_window_is_freed():
    _, state = build(4, window=4)(inputs())
    for heads in (state.k, state.v):
        assert heads.shape[2] == 3
        assert heads.untyped_storage().nbytes() == heads.nbytes


@torch.no_grad()
def test_grouped_heads_are_repeated_heads():
    grouped, full = build(4, 2, rope=1e4), build(4, 4, rope=1e4)
    weights = grouped.state_dict()
    for name in ("k_proj.weight", "v_proj.weight"):
        weights[name] = weights[name].unflatten(0, (2, 4)).repeat_interleave(2, dim=0).flatten(0, 1)
    full.load_state_dict(weights)
    close(grouped(inputs())[0], full(inputs())[0])


@torch.no_grad()
def test_scale():
    """A larger scale sharpens: without limit, every query reads its best key alone."""
    y, _ = build(1, scale=1e9)(inputs())
    layer = build(1)
    q, k, v = (project(inputs()) for project in (layer.q_proj, layer.k_proj, layer.v_proj))
    scores = (q @ k.mT).masked_fill(torch.ones(LENGTH, LENGTH).triu(1).bool(), -torch.inf)
    rows = torch.arange(2)[:, None]
    close(y, layer.o_proj(v[rows, scores.argmax(-1)]))


def test_a_cache_longer_than_the_window_is_refused():
    layer = build(4, window=4)
    heads = torch.zeros(2, 4, 4, 4, dtype=torch.float64)
    with pytest.raises(ValueError, match="state must hold at most window - 1 = 3 tokens; got 4"):
        layer(inputs(), KVCache(heads, heads, torch.zeros(2, dtype=torch.int64)))


def test_keys_and_values_of_different_lengths_are_refused():
    layer = build(4)
    heads = torch.zeros(2, 4, 4, 4, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"state\.v must have shape .* \(2, 4, 4, 4\); got \(2, 4, 3, 4\)"):
        layer(inputs(), KVCache(heads, heads[:, :, 1:], torch.zeros(2, dtype=torch.int64)))


@torch.no_grad()
def test_calls_of_a_shared_block_share_weights_but_not_the_past():
    torch.manual_seed(0)
    block = SharedAttention(D_MODEL, 4, 20, 2).double()
    x, embeddings = inputs(0), inputs(1)
    whole = [block(x, embeddings=embeddings, call=call)[0] for call in (0, 1)]
    assert (whole[0] - whole[1]).abs().max() > 1e-3  # their last linear maps differ
    states = [block(x[:, :5], embeddings=embeddings[:, :5], call=call)[1] for call in (0, 1)]
    for call in (1, 0):
        y, _ = block(x[:, 5:], states[call], embeddings=embeddings[:, 5:], call=call)
        close(y, whole[call][:, 5:])
    assert sum("self_attn.q_proj" in name for name, _ in block.named_parameters()) == 1


def test_shared_block_refuses_other_embeddings_and_calls():
    block = SharedAttention(D_MODEL, 4, 20, 2).double()
    with pytest.raises(ValueError, match=r"embeddings must have the shape of x, \(2, 12, 16\); got \(2, 11, 16\)"):
        block(inputs(), embeddings=inputs()[:, 1:])
    with pytest.raises(ValueError, match=r"embeddings must have the shape of x, .*; got NoneType"):
        block(inputs(), embeddings=None)
    for call in (2, -1, True, 0.0):
        with pytest.raises(ValueError, match=r"call must be an integer in 0 \.\. 1; got"):
            block.step(inputs()[:, 0], None, embeddings=inputs()[:, 0], call=call)
