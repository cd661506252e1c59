"""causal_conv1d's functions against torch's own convolution."""

import pytest
import torch
from torch.nn import functional as F

from ssm_kit.compat.causal_conv1d import causal_conv1d_fn, causal_conv1d_update

BATCH, CHANNELS, WIDTH, LENGTH = 2, 5, 4, 9


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def convolution(x, weight, bias, past):
    return F.conv1d(torch.cat([past, x], -1), weight[:, None], bias, groups=len(weight))


@pytest.mark.parametrize("activation", [None, "silu", "swish"])
def test_convolution(activation):
    x, weight, bias = random(BATCH, CHANNELS, LENGTH), random(CHANNELS, WIDTH), random(CHANNELS)
    past = random(BATCH, CHANNELS, WIDTH - 1)
    expected = convolution(x, weight, bias, past)
    expected = F.silu(expected) if activation else expected
    y, state = causal_conv1d_fn(x, weight, bias, None, past, True, activation=activation)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(state, x[..., 1 - WIDTH :])
    without = causal_conv1d_fn(x, weight, bias, activation=activation)
    torch.testing.assert_close(without[..., WIDTH - 1 :], expected[..., WIDTH - 1 :])


def test_convolution_gradients_equal_torchs():
    leaves = [random(BATCH, CHANNELS, LENGTH), random(CHANNELS, WIDTH), random(CHANNELS), random(BATCH, CHANNELS, 3)]
    x, weight, bias, past = (leaf.requires_grad_() for leaf in leaves)
    direction = random(BATCH, CHANNELS, LENGTH)
    y = causal_conv1d_fn(x, weight, bias, initial_states=past, activation="silu")
    got = torch.autograd.grad((y * direction).sum(), leaves)
    expected = torch.autograd.grad((F.silu(convolution(x, weight, bias, past)) * direction).sum(), leaves)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_convolution_keeps_packed_sequences_apart():
    x, weight = random(BATCH, CHANNELS, LENGTH), random(CHANNELS, WIDTH)
    seq_idx = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2, 2], [5] * 9], dtype=torch.int32)
    y = causal_conv1d_fn(x, weight, seq_idx=seq_idx)
    for row, steps in [(0, slice(0, 3)), (0, slice(3, 5)), (0, slice(5, 9)), (1, slice(0, 9))]:
        torch.testing.assert_close(y[row, :, steps], causal_conv1d_fn(x[row : row + 1, :, steps], weight)[0])


@pytest.mark.parametrize("state_length", [WIDTH - 1, WIDTH, WIDTH + 3])
@pytest.mark.parametrize("steps", [None, 1, 2])
def test_update(state_length, steps):
    x, weight, bias = random(BATCH, CHANNELS, 8), random(CHANNELS, WIDTH), random(CHANNELS)
    expected = F.silu(convolution(x, weight, bias, torch.zeros(BATCH, CHANNELS, WIDTH - 1, dtype=x.dtype)))
    state = torch.zeros(BATCH, CHANNELS, state_length, dtype=x.dtype)
    pieces = x.unbind(-1) if steps is None else x.split(steps, -1)
    ys = [causal_conv1d_update(piece, state, weight, bias, "silu") for piece in pieces]
    assert all(y.shape == piece.shape for y, piece in zip(ys, pieces, strict=True))
    y = torch.stack(ys, -1) if steps is None else torch.cat(ys, -1)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(state, F.pad(x, (state_length, 0))[..., -state_length:])


@pytest.mark.parametrize("option", ["cache_seqlens", "conv_state_indices"])
def test_update_refuses_by_name_what_it_does_not_have(option):
    x, weight, state = random(BATCH, CHANNELS), random(CHANNELS, WIDTH), random(BATCH, CHANNELS, WIDTH)
    with pytest.raises(NotImplementedError, match=option):
        causal_conv1d_update(x, state, weight, **{option: torch.zeros(BATCH, dtype=torch.int32)})


def test_convolution_refuses_a_place_for_its_final_states():
    x, weight, place = random(BATCH, CHANNELS, LENGTH), random(CHANNELS, WIDTH), random(BATCH, CHANNELS, WIDTH - 1)
    with pytest.raises(NotImplementedError, match="final_states_out"):
        causal_conv1d_fn(x, weight, return_final_states=True, final_states_out=place)


@pytest.mark.parametrize("option", [{"initial_states": torch.zeros(2, 5, 3)}, {"return_final_states": True}], ids=str)
def test_packed_sequences_have_no_states(option):
    x, weight = torch.zeros(BATCH, CHANNELS, LENGTH), torch.zeros(CHANNELS, WIDTH)
    with pytest.raises(NotImplementedError, match=next(iter(option))):
        causal_conv1d_fn(x, weight, seq_idx=torch.zeros(BATCH, LENGTH, dtype=torch.int32), **option)


def test_other_activations_are_refused():
    x, weight, state = random(BATCH, CHANNELS, LENGTH), random(CHANNELS, WIDTH), random(BATCH, CHANNELS, WIDTH)
    with pytest.raises(NotImplementedError, match="activation must be None, 'silu' or 'swish'; got 'gelu'"):
        causal_conv1d_fn(x, weight, activation="gelu")
    with pytest.raises(NotImplementedError, match="activation"):
        causal_conv1d_update(x, state, weight, activation="gelu")


def test_a_state_that_is_too_short_is_refused():
    x, weight, state = random(BATCH, CHANNELS), random(CHANNELS, WIDTH), random(BATCH, CHANNELS, WIDTH - 2)
    with pytest.raises(ValueError, match="conv_state must hold at least W - 1 = 3 inputs; got 2"):
        causal_conv1d_update(x, state, weight)
