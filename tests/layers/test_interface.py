"""What every layer promises: pieces, steps and the whole sequence agree, and states are values."""

import pytest
import torch
from layer_cases import BATCH, D_MODEL, LAYERS, LENGTH, build, inputs, stepwise, tensors

from ssm_kit.layers import KVCache, Mamba, state_bytes

WINDOWS = {"window of 4": 4, "window of 1": 1}
REMEMBERS = [name for name in LAYERS if tensors(LAYERS[name]().init_state(1))]


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.fixture(params=LAYERS)
def layer(request):
    return build(request.param)


@torch.no_grad()
def test_steps_give_the_whole_sequence(layer):
    x = inputs()
    y, state = layer(x)
    steps, after = stepwise(layer, x)
    close(steps, y)
    for one, other in zip(tensors(after), tensors(state), strict=True):
        close(one, other)


@torch.no_grad()
def test_pieces_give_the_whole_sequence_at_every_split(layer):
    x = inputs()
    y, state = layer(x)
    for split in range(1, LENGTH):
        first, between = layer(x[:, :split])
        second, after = layer(x[:, split:], between)
        close(torch.cat([first, second], 1), y)
        for one, other in zip(tensors(after), tensors(state), strict=True):
            close(one, other)


@torch.no_grad()
def test_a_prompt_can_be_continued_by_steps_and_steps_by_a_sequence(layer):
    x = inputs()
    y, _ = layer(x)
    first, state = layer(x[:, :4])
    second, state = stepwise(layer, x[:, 4:6], state)
    third, _ = layer(x[:, 6:], state)
    close(torch.cat([first, second, third], 1), y)


@torch.no_grad()
def test_no_input_is_changed(layer):
    x = inputs()
    _, state = layer(x[:, :4])
    before = [tensor.clone() for tensor in (x, *tensors(state))]
    once, _ = layer(x[:, 4:], state)
    layer.step(x[:, 4], state)
    twice, _ = layer(x[:, 4:], state)  # the same past, continued again
    assert torch.equal(once, twice)
    assert all(map(torch.equal, before, (x, *tensors(state))))


@torch.no_grad()
def test_nothing_is_the_initial_state(layer):
    x = inputs()
    assert torch.equal(layer(x)[0], layer(x, layer.init_state(BATCH))[0])


@torch.no_grad()
def test_the_future_does_not_matter(layer):
    x = inputs()
    changed = x.clone()
    changed[:, 5:] = inputs(seed=1)[:, 5:]
    (y, _), (other, _) = layer(x), layer(changed)
    close(other[:, :5], y[:, :5])
    assert ((other[:, 5:] - y[:, 5:]).abs().amax(-1) > 1e-6).all()


@torch.no_grad()
def test_rows_of_a_batch_are_independent(layer):
    x = inputs()
    y, state = layer(x)
    row, alone = layer(x[1:])
    close(row, y[1:])
    for one, all_rows in zip(tensors(alone), tensors(state), strict=True):
        close(one, all_rows[1:])


def test_gradients_reach_inputs_and_all_weights(layer):
    x = inputs().requires_grad_()
    _, state = layer(x[:, :4])
    y, _ = layer(x[:, 4:], state)
    (y * inputs(seed=2)[:, 4:]).sum().backward()  # of the second piece alone: the first is reached through the state
    for name, parameter in layer.named_parameters():
        if not name.startswith(("block.linear.0.", "block.adapter.0.")):  # of another call
            assert torch.isfinite(parameter.grad).all(), name
            alone = (
                getattr(layer, "window", None) == 1 and name[0] in "qk"
            )  # where nothing is chosen, nothing is learned
            assert (parameter.grad.abs().max() > 1e-8) != alone, name
    reached = x.grad.abs().sum(dim=(0, 2)) > 0
    assert reached[4:].all()
    assert bool(reached[:4].any()) == any(tensor.requires_grad and tensor.numel() for tensor in tensors(state))


@pytest.mark.parametrize("name", REMEMBERS)
def test_memory(name):
    """A cache grows with every token, up to its window less the token itself; any other state never grows."""
    layer = build(name).float()
    for length in (1, 3, 6):
        state = layer(inputs(length=length).float())[1]
        if isinstance(state, KVCache):
            kept = min(length, WINDOWS.get(name, length + 1) - 1)
            attention = getattr(getattr(layer, "block", None), "self_attn", layer)
            heads = BATCH * attention.num_kv_heads * attention.head_dim
            assert state_bytes(state) == 2 * 4 * heads * kept + 8 * BATCH
            assert state.position.tolist() == [length] * BATCH
        else:
            assert state_bytes(state) == state_bytes(layer.init_state(BATCH))


def test_bytes_of_nested_states():
    state = Mamba(D_MODEL, 4).init_state(3)
    own = 4 * 3 * (2 * D_MODEL) * (3 + 4)
    assert state_bytes(state) == own
    assert state_bytes([state, {"a": (state, None)}, None]) == 2 * own


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_made_without_memory_on_the_meta_device(name):
    """As large checkpoints are loaded: shapes first, numbers afterwards."""
    with torch.device("meta"):
        empty = LAYERS[name]()
    layer = build(name).float()
    empty.load_state_dict(layer.state_dict(), assign=True)
    x = inputs().float()
    assert torch.equal(empty(x)[0], layer(x)[0])


def test_states_keep_the_dtype_they_come_in():
    layer = Mamba(D_MODEL, 4).bfloat16()
    x = inputs().bfloat16()
    fresh = layer(x)[1]
    assert (fresh.conv.dtype, fresh.ssm.dtype) == (torch.bfloat16, torch.float32)
    narrow = layer.step(x[:, 0], layer.init_state(BATCH, dtype=torch.bfloat16))[1]
    assert (narrow.conv.dtype, narrow.ssm.dtype) == (torch.bfloat16, torch.bfloat16)


@pytest.mark.parametrize("name", [name for name in LAYERS if "experts" not in name])  # a token may change its expert
@torch.no_grad()
def test_half_precision(name):
    """bfloat16 weights and inputs: the dtype stays, the numbers are those of float64 to bfloat16's accuracy."""
    layer, x = build(name), inputs()
    expected = layer(x)[0]
    half = layer.bfloat16()
    y, state = half(x.bfloat16())
    y_t, _ = half.step(x[:, 0].bfloat16(), state)
    assert y.dtype == y_t.dtype == torch.bfloat16
    assert (y.double() - expected).abs().max() <= 0.1 * expected.abs().max()


@pytest.mark.parametrize("name", LAYERS)
def test_autocast(name):
    """Mixed precision, as in training: float32 weights get finite gradients, and pieces still fit together."""
    layer, x = build(name).float(), inputs().float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = layer(x)
        first, state = layer(x[:, :4])
        second, _ = layer(x[:, 4:], state)
    y.float().sum().backward()
    assert torch.isfinite(x.grad).all()
    assert all(torch.isfinite(weight.grad).all() for weight in layer.parameters() if weight.grad is not None)
    pieces = torch.cat([first, second], 1)
    assert (pieces - y).abs().max() <= 0.05 * y.abs().max()


@pytest.mark.parametrize("name", LAYERS)
def test_inputs_of_another_shape_are_refused(name):
    layer = build(name)
    with pytest.raises(ValueError, match=r"x must have shape \(B, L, d_model = 12\).*got \(2, 12\)"):
        layer(inputs()[:, 0])
    with pytest.raises(ValueError, match=r"x must have shape \(B, d_model = 12\).*got \(2, 9, 12\)"):
        layer.step(inputs(), None)
    with pytest.raises(ValueError, match=r"x must have shape .*got \(2, 9, 11\)"):
        layer(inputs()[..., 1:])
    with pytest.raises(ValueError, match=r"x must have shape .*got \(2, 0, 12\)"):
        layer(inputs()[:, :0])
    with pytest.raises(ValueError, match=r"x must have a dtype of .*; got int64"):
        layer(inputs().long())
    with pytest.raises(ValueError, match=r"state must be .*; got int"):
        layer(inputs(), 3)
    with pytest.raises(ValueError, match="batch_size must be an integer >= 1; got 0"):
        layer.init_state(0)


@pytest.mark.parametrize("name", REMEMBERS)
def test_states_of_another_shape_are_refused(name):
    layer = build(name)
    state = layer.init_state(BATCH + 1)
    with pytest.raises(ValueError, match=r"state\.\w+ must have shape .*; got"):
        layer(inputs(), state)
    with pytest.raises(ValueError, match=r"state\.\w+ must be a torch.Tensor; got NoneType"):
        layer.step(inputs()[:, 0], type(state)(*(None for _ in state)))
