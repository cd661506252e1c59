"""What the layers start from: the distributions of the papers and of their released code."""

import math

import pytest
import torch
import torch.nn.functional as F

from ssm_kit.layers import RGLRU, GatedDeltaNet, Mamba, Mamba2


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def assert_uniform(values, low, high):
    """Kolmogorov's test at one per mille: no gap between the empirical and the uniform distribution above 1.95 / √n."""
    n = values.numel()
    ranks = (torch.arange(n) + 0.5) / n
    positions = (values.detach().flatten().sort().values - low) / (high - low)
    assert n > 500
    assert (positions - ranks).abs().max() < 1.95 / math.sqrt(n)


def step_sizes(bias):
    return F.softplus(bias.double())


@pytest.mark.parametrize(
    "bias",
    [
        lambda **options: Mamba(64, expand=16, **options).dt_proj.bias,
        lambda **options: Mamba2(16, 1, headdim=1, nheads=1000, **options).dt_bias,
        lambda **options: GatedDeltaNet(4, 1000, 1000, 1, 1, **options).dt_bias,
    ],
    ids=["mamba", "mamba2", "gated deltanet"],
)
def test_step_sizes_are_log_uniform(bias):
    assert_uniform(step_sizes(bias()).log(), math.log(0.001), math.log(0.1))
    other = step_sizes(bias(dt_min=0.01, dt_max=0.5))
    assert_uniform(other.log(), math.log(0.01), math.log(0.5))
    raised = step_sizes(bias(dt_min=1e-6, dt_max=1e-3, dt_init_floor=1e-4))
    torch.testing.assert_close(raised.min().item(), 1e-4, rtol=1e-6, atol=0)
    assert (raised < 1.001e-4).double().mean() == pytest.approx(2 / 3, abs=0.06)  # two of three decades lie below


def test_mambas_decays_skip_and_projection_of_delta():
    layer = Mamba(96, 16, expand=8)
    torch.testing.assert_close(layer.A_log.exp(), torch.arange(1.0, 17).expand(768, 16))
    assert layer.D.eq(1).all()
    assert layer.dt_proj.weight.shape == (768, 6)  # 96 / 16
    assert Mamba(100).dt_rank == 7
    assert_uniform(layer.dt_proj.weight, -(6**-0.5), 6**-0.5)
    assert_uniform(layer.conv1d.weight, -0.5, 0.5)  # 1 / √taps


def test_decays_of_heads_are_uniform():
    assert_uniform(Mamba2(16, 1, headdim=1, nheads=1000).A_log.exp(), 1, 16)
    assert_uniform(Mamba2(16, 1, headdim=1, nheads=1000, A_init_range=(2, 3)).A_log.exp(), 2, 3)
    assert_uniform(GatedDeltaNet(4, 1000, 1000, 1, 1).A_log.exp(), 0.01, 16)


def test_griffins_decays_and_gates():
    layer = RGLRU(40, 2000, 50)
    decay = torch.exp(-F.softplus(layer.rg_lru.recurrent_param.double()))  # a
    assert_uniform(decay**8, 0.9, 0.999)
    for gate in (layer.rg_lru.input_gate_weight, layer.rg_lru.recurrent_gate_weight):
        assert gate.std().item() == pytest.approx(40**-0.5, rel=0.02)
    assert layer.linear_x.weight.std().item() == pytest.approx(40**-0.5, rel=0.02)
    assert layer.linear_out.weight.std().item() == pytest.approx(2000**-0.5, rel=0.02)
    assert layer.conv_1d.weight.std().item() == pytest.approx(0.05, rel=0.05)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (Mamba(8), {"dt_proj.bias", "A_log", "D"}),
        (Mamba(8, num_heads=2), {"dt_proj.bias", "A_log", "D"}),
        (Mamba2(8, headdim=4), {"dt_bias", "A_log", "D"}),
        (GatedDeltaNet(8, 1, 2, 4, 4), {"dt_bias", "A_log"}),
        (RGLRU(8), {"rg_lru.recurrent_param"}),
    ],
    ids=["mamba", "mamba in heads", "mamba2", "gated deltanet", "rg-lru"],
)
def test_time_scales_are_spared_weight_decay(layer, expected):
    def marked(module):
        return {name for name, weight in module.named_parameters() if getattr(weight, "_no_weight_decay", False)}

    assert marked(layer) == expected
    assert marked(layer.double()) == expected
