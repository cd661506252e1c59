"""fla's gated delta rule against the recurrence as printed (arXiv 2412.06464, eq. 10)."""

import pytest
import torch
from torch.nn import functional as F

from ssm_kit.compat.fla import chunk_gated_delta_rule, fused_recurrent_gated_delta_rule

BATCH, LENGTH, KEY_HEADS, HEADS, KEY, VALUE = 2, 13, 2, 4, 3, 5


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def inputs():
    q, k = (F.normalize(random(BATCH, LENGTH, KEY_HEADS, KEY), dim=-1) for _ in range(2))
    v, g = random(BATCH, LENGTH, HEADS, VALUE), F.logsigmoid(random(BATCH, LENGTH, HEADS))
    return q, k, v, g, random(BATCH, LENGTH, HEADS).sigmoid(), random(BATCH, HEADS, KEY, VALUE)


def recurrence(q, k, v, g, beta, scale, state):
    """S ← α S (I - β k kᵀ) + β v kᵀ, o = S q, on S with values before keys; returned with keys first."""
    q, k = (tensor.repeat_interleave(HEADS // KEY_HEADS, dim=2) for tensor in (q, k))
    S, outputs = state.mT, []
    for t in range(q.shape[1]):
        k_t, beta_t = k[:, t, :, None], beta[:, t, :, None, None]
        erase = torch.eye(KEY, dtype=S.dtype) - beta_t * k_t.mT * k_t
        S = g[:, t, :, None, None].exp() * S @ erase + beta_t * v[:, t, ..., None] * k_t
        outputs.append(scale * (S @ q[:, t, ..., None])[..., 0])
    return torch.stack(outputs, 1), S.mT


def call(rule, q, k, v, g, beta, *rest, **options):
    """Both functions by position: in one of them beta comes two places later."""
    if rule is fused_recurrent_gated_delta_rule:
        return rule(q, k, v, g, None, None, beta, *rest, **options)
    return rule(q, k, v, g, beta, *rest, **options)


rules = pytest.mark.parametrize("rule", [chunk_gated_delta_rule, fused_recurrent_gated_delta_rule])


@rules
@pytest.mark.parametrize("scale", [None, 0.3])
def test_rule(rule, scale):
    *tensors, state = inputs()
    o, final = call(rule, *tensors, scale, state, True)
    expected_o, expected_final = recurrence(*tensors, KEY**-0.5 if scale is None else scale, state)
    torch.testing.assert_close(o, expected_o, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(final, expected_final, rtol=1e-10, atol=1e-12)


@rules
def test_normalised_keys_and_queries(rule):
    q, k, v, g, beta, state = inputs()
    q, k = 3 * q, 0.5 * k
    o, final = call(rule, q, k, v, g, beta, None, state, True, True)
    unit = [tensor / (tensor.square().sum(-1, keepdim=True) + 1e-6).sqrt() for tensor in (q, k)]
    expected_o, expected_final = recurrence(*unit, v, g, beta, KEY**-0.5, state)
    torch.testing.assert_close(o, expected_o, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(final, expected_final, rtol=1e-10, atol=1e-12)


@rules
def test_no_decay_and_full_writing_by_default(rule):
    q, k, v, g, beta, state = inputs()
    o, final = rule(q, k, v, initial_state=state)
    expected, _ = recurrence(q, k, v, torch.zeros_like(g), torch.ones_like(beta), KEY**-0.5, state)
    assert final is None
    torch.testing.assert_close(o, expected, rtol=1e-10, atol=1e-12)


@rules
def test_packed_sequences(rule):
    q, k, v, g, beta, state = (tensor[:1] for tensor in inputs())
    starts = torch.cat([state, 2 * state])
    o, final = call(rule, q, k, v, g, beta, None, starts, True, cu_seqlens=torch.tensor([0, 5, LENGTH]))
    for i, steps in enumerate([slice(0, 5), slice(5, LENGTH)]):
        own = [tensor[:, steps] for tensor in (q, k, v, g, beta)]
        expected_o, expected_final = recurrence(*own, KEY**-0.5, starts[i : i + 1])
        torch.testing.assert_close(o[:, steps], expected_o, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(final[i : i + 1], expected_final, rtol=1e-10, atol=1e-12)


@rules
def test_gradients_equal_those_of_the_recurrence(rule):
    leaves = [tensor.requires_grad_() for tensor in inputs()]
    *tensors, state = leaves
    weight, state_weight = random(BATCH, LENGTH, HEADS, VALUE), random(*state.shape)
    o, final = call(rule, *tensors, None, state, True)
    got = torch.autograd.grad((o * weight).sum() + (final * state_weight).sum(), leaves)
    o, final = recurrence(*tensors, KEY**-0.5, state)
    expected = torch.autograd.grad((o * weight).sum() + (final * state_weight).sum(), leaves)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@rules
@pytest.mark.parametrize("option", ["head_first", "state_v_first", "use_beta_sigmoid_in_kernel", "allow_neg_eigval"])
def test_options_that_are_missing_are_refused_by_name(rule, option):
    q, k, v, g, beta, _ = inputs()
    with pytest.raises(NotImplementedError, match=option):
        call(rule, q, k, v, g, beta, **{option: True})
    call(rule, q, k, v, g, beta, **{option: False})


@pytest.mark.parametrize("option", ["gk", "gv"])
def test_decays_of_single_keys_or_values_are_refused(option):
    q, k, v, g, beta, _ = inputs()
    with pytest.raises(NotImplementedError, match=option):
        fused_recurrent_gated_delta_rule(q, k, v, g, beta=beta, **{option: v})
