"""The RMS norms: what they divide by, what the gate does, and in which precision."""

import pytest
import torch
import torch.nn.functional as F

from ssm_kit.layers import GatedRMSNorm, RMSNorm


def numbers(seed=0, size=12):
    return torch.randn(3, 5, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 4


@torch.no_grad()
def test_mean_squares_become_one():
    y = RMSNorm(12, eps=0.0)(numbers())
    torch.testing.assert_close(y.square().mean(-1), torch.ones(3, 5, dtype=torch.float64))
    assert RMSNorm(12)(numbers() * 1e-6).abs().max() < 0.1  # eps keeps noise small


@torch.no_grad()
def test_a_weight_may_be_stored_as_its_difference_from_one():
    plain, centred = RMSNorm(12), RMSNorm(12, zero_centered=True)
    assert torch.equal(plain(numbers()), centred(numbers()))
    plain.weight += torch.arange(12) / 8
    centred.weight += torch.arange(12) / 8
    assert torch.equal(plain(numbers()), centred(numbers()))


@pytest.mark.parametrize("before", [True, False])
@torch.no_grad()
def test_the_order_of_norm_and_gate(before):
    norm, x, z = GatedRMSNorm(12, eps=0.0, norm_before_gate=before), numbers(0), numbers(1)
    norm.weight += torch.arange(12) / 8
    y = norm(x, z)
    silu = F.silu(z)
    ungated = y / norm.weight / silu if before else y / norm.weight
    torch.testing.assert_close(ungated.square().mean(-1), torch.ones(3, 5, dtype=torch.float64))
    opened = norm(x, z + 100)
    assert bool(opened.abs().max() > 5 * y.abs().max()) == before  # only a gate after the norm can scale it


@torch.no_grad()
def test_groups_do_not_see_each_other():
    norm, x, z = GatedRMSNorm(12, 4), numbers(0), numbers(1)
    louder = x.clone()
    louder[..., :4] *= 3
    y, other = norm(x, z), norm(louder, z)
    assert torch.equal(y[..., 4:], other[..., 4:])
    for start in (0, 4, 8):
        part = slice(start, start + 4)
        torch.testing.assert_close(y[..., part], GatedRMSNorm(4)(x[..., part], z[..., part]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_squares_are_taken_in_float32(dtype):
    """400² is beyond float16."""
    x = (numbers() * 100).to(dtype)
    assert x.abs().max() > 400
    for norm, given in ((RMSNorm(12), (x,)), (GatedRMSNorm(12, 6), (x, torch.full_like(x, 3.0)))):
        y, exact = norm.to(dtype)(*given), norm.double()(*(tensor.double() for tensor in given))
        assert y.dtype == dtype
        torch.testing.assert_close(y.double(), exact, rtol=torch.finfo(dtype).eps, atol=1e-6)
