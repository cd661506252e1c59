"""Mixture of experts: against the sum written out, and what the router may and may not do."""

import pytest
import torch
import torch.nn.functional as F

from ssm_kit.layers import MLP, MoE

D_MODEL, D_FF, EXPERTS = 6, 8, 5


def build(top_k, **options):
    torch.manual_seed(0)
    return MoE(D_MODEL, D_FF, EXPERTS, top_k, **options).double()


def tokens(count=40):
    return torch.randn(count, D_MODEL, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def expert(layer, index, x):
    gate, up = F.linear(x, layer.experts.gate_up_proj[index]).chunk(2, dim=-1)
    return F.linear(F.silu(gate) * up, layer.experts.down_proj[index])


@pytest.mark.parametrize("top_k", [1, 2, EXPERTS])
@torch.no_grad()
def test_every_token_gets_its_experts(top_k):
    layer, x = build(top_k), tokens()
    y, _ = layer.step(x, None)
    for token, output in zip(x, y, strict=True):
        scores = F.softmax(layer.gate.weight @ token, dim=0)
        best = sorted(range(EXPERTS), key=lambda index: -scores[index])[:top_k]
        expected = sum(scores[index] * expert(layer, index, token) for index in best)
        torch.testing.assert_close(output, expected, rtol=1e-10, atol=1e-12)


@torch.no_grad()
def test_no_token_is_dropped_when_all_want_the_same_expert():
    layer, x = build(1), tokens()
    layer.gate.weight.zero_()
    layer.gate.weight[3] = 1.0
    x = x.abs()
    weights, chosen = layer.gate(x)
    assert chosen.eq(3).all()
    torch.testing.assert_close(layer.step(x, None)[0], weights * expert(layer, 3, x))


@torch.no_grad()
def test_equal_experts_make_one_mlp():
    """With weights of sum 1 and the same MLP everywhere, choice has no effect."""
    layer, mlp = build(2, normalize=True), MLP(D_MODEL, D_FF).double()
    layer.experts.gate_up_proj.copy_(torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]))
    layer.experts.down_proj.copy_(mlp.down_proj.weight)
    torch.testing.assert_close(layer.step(tokens(), None)[0], mlp.step(tokens(), None)[0], rtol=1e-10, atol=1e-12)


@torch.no_grad()
def test_the_bias_of_choice_chooses_but_does_not_weigh():
    layer, x = build(2, score="sigmoid"), tokens()
    _, before = layer.gate(x)
    layer.gate.e_score_correction_bias[4] = 10.0
    weights, chosen = layer.gate(x)
    assert (chosen == 4).any(dim=1).all()
    assert not (before == 4).any(dim=1).all()
    torch.testing.assert_close(weights, torch.sigmoid(x @ layer.gate.weight.mT).gather(1, chosen))


@torch.no_grad()
def test_scale_and_normalization():
    weights, _ = build(3, score="sigmoid", normalize=True, scale=2.5).gate(tokens())
    torch.testing.assert_close(weights.sum(dim=1), torch.full((40,), 2.5, dtype=torch.float64))


def test_experts_without_tokens_get_no_gradient():
    layer, x = build(1), tokens(3)
    layer.step(x, None)[0].sum().backward()
    chosen = layer.gate(x)[1].unique().tolist()
    used = layer.experts.down_proj.grad.abs().amax(dim=(1, 2)) > 0
    assert used.tolist() == [index in chosen for index in range(EXPERTS)]
