"""The layers S4 and S4D: the model they hold, its precision, and that they learn (the interface: test_interface)."""

import math

import pytest
import torch
import torch.nn.functional as F

from ssm_kit.layers import S4, S4D, state_bytes
from ssm_kit.lti import S4D_KINDS, discretize, hippo_legs, legs_dplr, recurrence, s4d_init

MAKERS = {"S4": lambda d, n: S4(d, n)} | {
    f"S4D-{kind}": (lambda d, n, kind=kind: S4D(d, n, init=kind)) for kind in S4D_KINDS
}


@pytest.fixture(params=MAKERS)
def make(request):
    torch.manual_seed(0)
    return MAKERS[request.param]


def test_single_precision_is_enough_for_long_sequences(make):
    """A whole sequence and its pieces, in float32, against float64."""
    layer, x = make(4, 32), torch.randn(1, 400, 4)
    y, state = layer(x)
    _, before = layer(x[:, :150])
    z, after = layer(x[:, 150:], before)
    exact, end = layer.double()(x.double())
    for ours, theirs in [(y, exact), (z, exact[:, 150:]), (state.ssm, end.ssm), (after.ssm, end.ssm)]:
        assert (ours - theirs).abs().max() < 2e-5 * theirs.abs().max()


def test_the_state_carries_gradients(make):
    """Training over two pieces gives the gradients of training over the whole."""
    layer, x = make(4, 6).double(), torch.randn(2, 11, 4, dtype=torch.float64)
    gradients = []
    for cut in (11, 5):
        layer.zero_grad()
        y, state = layer(x[:, :cut])
        loss = y.square().sum()
        if cut < 11:
            loss = loss + layer(x[:, cut:], state)[0].square().sum()
        loss.backward()
        gradients.append([parameter.grad.clone() for parameter in layer.parameters()])
    assert all(gradient.abs().max() > 0 for gradient in gradients[0])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("n", [0, 3])
def test_a_fresh_s4_is_hippo_legs(n):
    """Read out through row n of V, it gives coefficient n of the LegS memory of its input."""
    layer, x = S4(1, 8, dt_min=0.05, dt_max=0.05).double(), torch.randn(1, 30, 1, dtype=torch.float64)
    with torch.no_grad():
        layer.C.copy_(torch.view_as_real(torch.from_numpy(legs_dplr(8).V[n, 4:])))
    A, B = (torch.from_numpy(part) for part in hippo_legs(8))
    expected = recurrence(*discretize(A, B, 0.05, "bilinear"), torch.eye(8, dtype=torch.float64)[n], x[0, :, 0])
    y, _ = layer._run(x, None)
    torch.testing.assert_close(y[0, :, 0], expected, rtol=1e-5, atol=1e-5)  # the start was stored in float32


def test_s4d_is_the_diagonal_model_of_ssm_kit_lti():
    layer, x = S4D(3, 8, init="lin").double(), torch.randn(10, 3, dtype=torch.float64)
    A = torch.from_numpy(s4d_init(8, "lin")).expand(3, -1)
    A_bar, B_bar = discretize(A, torch.ones_like(A), layer.log_dt.exp())
    ssm = 2 * recurrence(A_bar, B_bar, torch.view_as_complex(layer.C), x).real
    expected = F.glu(layer.output_linear(F.gelu(ssm + layer.D * x)), -1)
    torch.testing.assert_close(layer(x[None])[0][0], expected, rtol=1e-6, atol=1e-6)  # A was stored in float32


def test_step_sizes_are_drawn_log_uniformly_and_dynamics_do_not_decay():
    torch.manual_seed(0)
    layer = S4D(4000, 2, dt_min=0.001, dt_max=0.1)
    position = (layer.log_dt - math.log(0.001)) / math.log(100)
    assert 0 <= position.min() < 0.01 < 0.99 < position.max() <= 1
    assert abs(position.mean() - 0.5) < 0.02
    spared = {name for name, parameter in S4(2, 4).named_parameters() if getattr(parameter, "_no_weight_decay", False)}
    assert spared == {"log_dt", "log_A_real", "A_imag"}


def test_a_trained_s4_stays_stable():
    """Λ − P P* with Re Λ < 0 has all eigenvalues in the left half plane, whatever P became."""
    torch.manual_seed(1)
    layer = S4(5, 8)
    with torch.no_grad():
        layer.P.mul_(10).add_(torch.randn_like(layer.P))
        layer.A_imag.normal_(std=20)
    Lambda, P, *_ = layer._model()
    A = torch.diag_embed(Lambda) - P[:, :, None] * P.conj()[:, None, :]
    assert torch.linalg.eigvals(A).real.max() < 0


def test_a_delay_is_learned(make):
    """The input of 3 steps before: what a layer without memory cannot give."""
    layer, head = make(4, 8), torch.nn.Linear(4, 1)
    optimizer = torch.optim.Adam([*layer.parameters(), *head.parameters()], 0.05)
    x = torch.randn(8, 20, 1)
    target, losses = F.pad(x, (0, 0, 3, 0))[:, :20], []
    for _ in range(30):
        loss = F.mse_loss(head(layer(x.expand(-1, -1, 4))[0]), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_half_precision_in_and_out_single_inside(make):
    layer = make(4, 4).bfloat16()
    y, state = layer(torch.randn(2, 9, 4, dtype=torch.bfloat16))
    assert y.dtype == torch.bfloat16
    assert state.ssm.dtype in (torch.complex64, torch.float32)
    assert state_bytes(layer.init_state(2)) == state_bytes(state) == 2 * 4 * 4 * 4  # B · D · N numbers of 4 bytes


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: S4(4, 5), "d_state"),
        (lambda: S4D(4, 5), "size must be even for kind legs"),
        (lambda: S4D(4, 4, init="random"), "kind must be one of"),
        (lambda: S4(0), "d_model must be an integer >= 1; got 0"),
        (lambda: S4(4, 4, dt_min=0.1, dt_max=0.01), "dt_min"),
        (lambda: S4(4, 4)(torch.randn(2, 3, 5)), "x must have shape"),
        (lambda: S4(4, 4)(torch.randn(2, 3, 4), S4(4, 8).init_state(2)), r"state.ssm"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_compiler_sees_the_layer_in_one_piece():
    """Checks of values, which would make it stop and look, pass while it traces."""
    torch.manual_seed(0)
    layer, x = S4D(4, 6), torch.randn(2, 9, 4)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x)[0], layer(x)[0], rtol=0, atol=0)
