"""What single recurrent layers do, beyond what holds of all."""

import pytest
import torch
import torch.nn.functional as F

from ssm_kit.layers import RGLRU, GatedDeltaNet, LinearAttention, Mamba, Mamba2
from ssm_kit.layers.rg_lru import MAX_SQRT_GRADIENT, BoundedSqrt

D_MODEL, LENGTH = 8, 10


def inputs(seed=0):
    return torch.randn(2, LENGTH, D_MODEL, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


FEATURES = {"elu": lambda x: F.elu(x) + 1, "hedgehog": lambda x: F.softmax(torch.cat([x, -x], -1), -1)}


@pytest.mark.parametrize("name", FEATURES)
@torch.no_grad()
def test_linear_attention_written_out(name):
    layer, x, features = LinearAttention(D_MODEL, 2, 3, name).double(), inputs(), FEATURES[name]
    q, k, v = (
        project(x).unflatten(-1, (2, 3)).transpose(1, 2) for project in (layer.q_proj, layer.k_proj, layer.v_proj)
    )
    weights = (features(q) @ features(k).mT).tril()  # (B, H, L, L)
    o = weights @ v / weights.sum(-1, keepdim=True)
    torch.testing.assert_close(layer(x)[0], layer.o_proj(o.transpose(1, 2).flatten(2)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("chunk_size", [1, 3, LENGTH, 64])
@torch.no_grad()
def test_mamba2s_chunks_do_not_change_the_result(chunk_size):
    layer = Mamba2(D_MODEL, 4, headdim=4).double()
    expected, _ = layer(inputs())
    layer.chunk_size = chunk_size
    torch.testing.assert_close(layer(inputs())[0], expected, rtol=1e-10, atol=1e-12)


@torch.no_grad()
def test_mamba2_holds_its_step_sizes_in_their_limits():
    """Limits that meet leave one step size, whatever the input asks for."""
    layer = Mamba2(D_MODEL, 4, headdim=4, dt_limit=(0.3, 0.3)).double()
    expected, _ = layer(inputs())
    layer.dt_bias += 5
    torch.testing.assert_close(layer(inputs())[0], expected)
    free = Mamba2(D_MODEL, 4, headdim=4).double()
    free.load_state_dict(layer.state_dict())
    free.in_proj.weight[-free.nheads :] = 0.0  # Δ from its bias alone
    free.dt_bias.fill_(torch.tensor(0.3).double().expm1().log().item())  # softplus gives 0.3
    torch.testing.assert_close(free(inputs())[0], expected)


@torch.no_grad()
def test_groups_share_b_and_c():
    """With equal B and C in both groups, two groups are one."""
    one = Mamba2(D_MODEL, 3, headdim=4, norm_eps=1e-5).double()
    two = Mamba2(D_MODEL, 3, headdim=4, ngroups=2).double()
    weights = one.state_dict()
    for name in ("in_proj.weight", "conv1d.weight", "conv1d.bias"):
        start = 32 if name.startswith("in_proj") else 16
        B, C = weights[name][start : start + 3], weights[name][start + 3 : start + 6]
        rest = weights[name][:start], weights[name][start + 6 :]
        weights[name] = torch.cat([rest[0], B, B, C, C, rest[1]])
    two.load_state_dict(weights)
    torch.testing.assert_close(two(inputs())[1].ssm, one(inputs())[1].ssm)
    assert (two(inputs())[0] - one(inputs())[0]).abs().max() > 1e-4  # the norm still acts group by group


@torch.no_grad()
def test_large_steps_of_mamba_forget():
    """Δ decides what stays: with a large one only the present token is left, with a tiny one nothing gets in."""
    layer, x = Mamba(D_MODEL, 4, 1).double(), inputs()
    layer.dt_proj.bias.fill_(100.0)
    past, present = layer(x)[1].ssm, layer(x[:, -1:])[1].ssm
    torch.testing.assert_close(past, present)
    layer.dt_proj.bias.fill_(-100.0)
    assert layer(x)[1].ssm.abs().max() < 1e-30


@torch.no_grad()
def test_gated_deltanet_reads_back_what_it_wrote():
    """Full correction (β = 1), no decay: a key that is met again gives the value last written under it."""
    layer = GatedDeltaNet(D_MODEL, 1, 1, 4, 4, d_conv=1).double()
    layer.in_proj_ba.weight.zero_()
    layer.A_log.fill_(-100.0)  # α = 1
    layer.in_proj_ba.weight[0] = 1.0
    x = inputs().abs() * 50  # β = σ(large) = 1
    _, state = layer(x)
    qkv = layer.in_proj_qkvz(x)[..., :12] * layer.conv1d.weight[:, 0, 0]
    _, k, v = F.silu(qkv).split(4, dim=-1)
    key = k[:, -1] / (k[:, -1].square().sum(-1, keepdim=True) + 1e-6).sqrt()
    read = torch.einsum("bkv,bk->bv", state.memory[:, 0], key)
    torch.testing.assert_close(read, v[:, -1], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_griffin_takes_the_first_token_in_at_full_strength():
    layer, x = RGLRU(D_MODEL, num_heads=2, d_conv=1).double(), inputs()
    layer.rg_lru.recurrent_param.fill_(-20.0)  # a nearly 1: nothing is forgotten, and later tokens hardly get in
    u = layer.conv_1d.weight[:, 0, 0] * layer.linear_x(x)
    gate = torch.sigmoid(torch.einsum("blhi,hij->blhj", u.unflatten(-1, (2, 4)), layer.rg_lru.input_gate_weight))
    _, state = layer(x)
    torch.testing.assert_close(state.recurrent, u[:, 0] * gate[:, 0].flatten(-2), rtol=1e-3, atol=1e-3)
    assert state.position.tolist() == [LENGTH, LENGTH]


def test_griffins_gradient_stays_finite_where_nothing_is_forgotten():
    layer = RGLRU(D_MODEL)
    with torch.no_grad():
        layer.rg_lru.recurrent_param.fill_(-200.0)  # a = 1 in float32
    layer(inputs().float())[0].sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in layer.parameters())


def test_bounded_square_root():
    x = torch.tensor([0.0, 1e-8, 1e-4, 0.25, 4.0], dtype=torch.float64, requires_grad=True)
    y = BoundedSqrt.apply(x)
    y.sum().backward()
    assert torch.equal(y, x.sqrt())
    torch.testing.assert_close(x.grad, torch.tensor([1000.0, 1000.0, 50.0, 1.0, 0.25], dtype=torch.float64))
    assert MAX_SQRT_GRADIENT == 1000.0
