"""Gated S4D: Mamba's block around the recurrence of `ssm_kit.lti`, in pieces and in steps."""

import pytest
import torch
import torch.nn.functional as F

from ssm_kit.layers import state_bytes
from ssm_kit.layers.gated_s4d import GatedS4D
from ssm_kit.lti import discretize, recurrence

D_MODEL, STATES, LENGTH = 6, 4, 9


@pytest.fixture(params=["legs", "real"])
def layer(request):
    torch.manual_seed(0)
    return GatedS4D(D_MODEL, STATES, init=request.param).double()


@pytest.fixture
def x():
    return torch.randn(2, LENGTH, D_MODEL, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_inside_is_a_time_invariant_recurrence(layer, x):
    u, z = layer.in_proj(x).chunk(2, dim=-1)
    taps = F.pad(u.mT, (layer.d_conv - 1, 0))
    u = F.silu(F.conv1d(taps, layer.conv1d.weight, layer.conv1d.bias, groups=layer.d_inner)).mT
    ssm = layer.ssm
    A, C, twice = -ssm.log_A_real.exp(), ssm.C, 1
    if hasattr(ssm, "A_imag"):
        A, C, twice = torch.complex(A, ssm.A_imag), torch.view_as_complex(C), 2
    A_bar, B_bar = discretize(A, torch.ones_like(A), ssm.log_dt.exp(), "zoh")
    y = torch.stack([twice * recurrence(A_bar, B_bar, C, row).real for row in u.to(A.dtype)]) + ssm.D * u
    torch.testing.assert_close(layer(x)[0], layer.out_proj(y * F.silu(z)), rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_pieces_and_steps_give_the_whole_sequence(layer, x):
    y, end = layer(x)
    first, state = layer(x[:, :5])
    outputs = [first]
    for token in x[:, 5:].unbind(1):
        step, state = layer.step(token, state)
        outputs.append(step[:, None])
    torch.testing.assert_close(torch.cat(outputs, 1), y, rtol=1e-10, atol=1e-10)
    for ours, theirs in zip(state, end, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_every_parameter_learns(layer, x):
    layer(x)[0].square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in layer.parameters())


def test_its_state_does_not_grow(layer, x):
    sizes = {state_bytes(layer(x[:, :length])[1]) for length in (1, 4, LENGTH)}
    assert sizes == {state_bytes(layer.init_state(2))}


def test_errors():
    with pytest.raises(ValueError, match="expand"):
        GatedS4D(4, expand=0)
    with pytest.raises(ValueError, match="even"):
        GatedS4D(4, 3)
