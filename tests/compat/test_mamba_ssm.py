"""mamba_ssm's functions against plain loops in the peer's own layouts."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ssm_kit.compat.mamba_ssm import (
    mamba_chunk_scan_combined,
    selective_scan_fn,
    selective_scan_ref,
    selective_state_update,
)

BATCH, CHANNELS, SIZE, LENGTH = 2, 6, 3, 11


def random(*shape: int, **options: object) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, **options)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def scan_loop(u, delta, A, B, C, *, D, z, bias):
    """y and h of Mamba-1 with softplus, channels first, B and C for every channel (B, D, N, L)."""
    delta = F.softplus(delta + bias[:, None])
    h, ys = torch.zeros(len(u), *A.shape, dtype=A.dtype), []
    for t in range(u.shape[-1]):
        step = delta[..., t, None]
        h = torch.exp(step * A) * h + step * B[..., t] * u[..., t, None]
        y = (C[..., t] * h).sum(-1)
        ys.append(2 * y.real if A.is_complex() else y)
    return (torch.stack(ys, -1) + D[:, None] * u) * F.silu(z), h


def inputs():
    u, delta, z = (random(BATCH, CHANNELS, LENGTH) for _ in range(3))
    return u, delta, z, random(CHANNELS), random(CHANNELS)


def per_channel(matrix: Tensor) -> Tensor:
    """(B, G, N, L) -> (B, D, N, L), a group's channels side by side."""
    return matrix.repeat_interleave(CHANNELS // matrix.shape[1], dim=1)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("scan", [selective_scan_fn, selective_scan_ref])
def test_selective_scan(scan, groups):
    u, delta, z, D, bias = inputs()
    A = -random(CHANNELS, SIZE).exp()
    B, C = (random(BATCH, groups, SIZE, LENGTH) for _ in range(2))
    given = (B[:, 0], C[:, 0]) if groups == 1 else (B, C)
    y, h = scan(u, delta, A, *given, D, z, bias, True, True)
    expected_y, expected_h = scan_loop(u, delta, A, per_channel(B), per_channel(C), D=D, z=z, bias=bias)
    torch.testing.assert_close(y, expected_y, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(h, expected_h, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(scan(u, delta, A, *given, D, z, bias, delta_softplus=True), y)


@pytest.mark.parametrize("complex_states", [False, True])
@pytest.mark.parametrize("constant", ["B", "C", "BC"])
def test_selective_scan_with_matrices_that_do_not_vary(constant, complex_states):
    u, delta, z, D, bias = inputs()
    dtype = torch.complex128 if complex_states else torch.float64
    A = torch.complex(-random(CHANNELS, SIZE).exp(), random(CHANNELS, SIZE)) if complex_states else -torch.rand(6, 3)
    A = A.to(dtype)
    given, full = [], []
    for name in "BC":
        if name in constant:
            given.append(torch.randn(CHANNELS, SIZE, dtype=dtype))
            full.append(given[-1][..., None].expand(BATCH, -1, -1, LENGTH))
        else:
            varying = torch.randn(BATCH, SIZE, LENGTH, dtype=dtype)
            given.append(torch.view_as_real(varying).flatten(-2) if complex_states else varying)
            full.append(varying[:, None])
    y, h = selective_scan_fn(u, delta, A, *given, D, z, bias, True, True)
    expected_y, expected_h = scan_loop(u, delta, A, *full, D=D, z=z, bias=bias)
    torch.testing.assert_close(y, expected_y, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(h, expected_h, rtol=1e-10, atol=1e-12)


def test_selective_scan_gradients_equal_the_loop():
    u, delta, z, D, bias = inputs()
    A, B, C = -random(CHANNELS, SIZE).exp(), random(BATCH, 2, SIZE, LENGTH), random(BATCH, 2, SIZE, LENGTH)
    leaves = [tensor.requires_grad_() for tensor in (u, delta, A.detach(), B, C, D, z, bias)]
    u, delta, A, B, C, D, z, bias = leaves
    weight, state_weight = random(*u.shape), random(BATCH, CHANNELS, SIZE)
    y, h = selective_scan_fn(u, delta, A, B, C, D, z, bias, True, True)
    got = torch.autograd.grad((y * weight).sum() + (h * state_weight).sum(), leaves)
    y, h = scan_loop(u, delta, A, per_channel(B), per_channel(C), D=D, z=z, bias=bias)
    expected = torch.autograd.grad((y * weight).sum() + (h * state_weight).sum(), leaves)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def heads_loop(x, delta, A, B, C, *, D, z=None, state=None):
    """y and h of Mamba-2, time first, B and C for every head (B, L, H, N)."""
    h, ys = torch.zeros(*x[:, 0].shape, B.shape[-1], dtype=x.dtype) if state is None else state, []
    for t in range(x.shape[1]):
        step = delta[:, t, :, None, None]
        h = torch.exp(step * A[:, None, None]) * h + step * x[:, t, ..., None] * B[:, t, :, None]
        ys.append((h * C[:, t, :, None]).sum(-1))
    y = torch.stack(ys, 1) + D.reshape(len(A), -1) * x
    return y if z is None else y * F.silu(z), h


HEADS, WIDTH, GROUPS = 4, 3, 2


def head_inputs(length=LENGTH):
    x, z = (random(BATCH, length, HEADS, WIDTH) for _ in range(2))
    dt, A, bias = random(BATCH, length, HEADS), -random(HEADS).exp(), random(HEADS)
    B, C = (random(BATCH, length, GROUPS, SIZE) for _ in range(2))
    return x, dt, A, B, C, z, bias


def per_head(matrix):
    return matrix.repeat_interleave(HEADS // GROUPS, dim=-2)


@pytest.mark.parametrize("chunk_size", [4, 64])
@pytest.mark.parametrize("limit", [(0.0, float("inf")), (0.2, 0.9)])
@pytest.mark.parametrize("skip", [(HEADS,), (HEADS, WIDTH)])
def test_chunk_scan(chunk_size, limit, skip):
    x, dt, A, B, C, z, bias = head_inputs()
    D, state = random(*skip), random(BATCH, HEADS, WIDTH, SIZE)
    y, h = mamba_chunk_scan_combined(
        x, dt, A, B, C, chunk_size, D, z, bias, state, dt_softplus=True, dt_limit=limit, return_final_states=True
    )
    delta = F.softplus(dt + bias).clamp(*limit)
    expected_y, expected_h = heads_loop(x, delta, A, per_head(B), per_head(C), D=D, z=z, state=state)
    torch.testing.assert_close(y, expected_y, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(h, expected_h, rtol=1e-10, atol=1e-12)


def test_chunk_scan_without_softplus_takes_negative_steps_as_zero_as_the_peer_does():
    x, dt, A, B, C, _, _ = head_inputs()
    y = mamba_chunk_scan_combined(x, dt, A, B, C, chunk_size=4)
    expected, _ = heads_loop(x, dt.clamp(min=0), A, per_head(B), per_head(C), D=torch.zeros(HEADS))
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-12)


def test_chunk_scan_keeps_packed_sequences_apart():
    x, dt, A, B, C, z, bias = head_inputs()
    D = random(HEADS)
    seq_idx = torch.tensor([[0] * 4 + [1] * 7, [0] * 11], dtype=torch.int32)
    together = {"D": D, "dt_bias": bias, "dt_softplus": True, "return_final_states": True, "chunk_size": 4}
    y, h = mamba_chunk_scan_combined(x, dt, A, B, C, z=z, seq_idx=seq_idx, **together)
    for row, steps in [(0, slice(0, 4)), (0, slice(4, 11)), (1, slice(0, 11))]:
        own = [tensor[row : row + 1, steps] for tensor in (x, dt, B, C, z)]
        alone, state = mamba_chunk_scan_combined(own[0], own[1], A, own[2], own[3], z=own[4], **together)
        torch.testing.assert_close(y[row, steps], alone[0], rtol=1e-10, atol=1e-12)
        if steps.stop == LENGTH:
            torch.testing.assert_close(h[row], state[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("grouped", [False, True])
def test_state_update_of_channels(grouped):
    u, delta, z, D, bias = inputs()
    A, B, C = -random(CHANNELS, SIZE).exp(), random(BATCH, 1, SIZE, LENGTH), random(BATCH, 1, SIZE, LENGTH)
    expected_y, expected_h = scan_loop(u, delta, A, B, C, D=D, z=z, bias=bias)
    state = torch.zeros(BATCH, CHANNELS, SIZE, dtype=torch.float64)
    held = state
    for t in range(LENGTH):
        B_t, C_t = (matrix[..., t] if grouped else matrix[:, 0, :, t] for matrix in (B, C))
        y = selective_state_update(state, u[..., t], delta[..., t], A, B_t, C_t, D, z[..., t], bias, True)
        torch.testing.assert_close(y, expected_y[..., t], rtol=1e-10, atol=1e-12)
    assert state is held
    torch.testing.assert_close(state, expected_h, rtol=1e-10, atol=1e-12)


def test_state_update_of_heads():
    x, dt, A, B, C, z, bias = head_inputs()
    D = random(HEADS)
    expected_y, expected_h = heads_loop(x, F.softplus(dt + bias), A, per_head(B), per_head(C), D=D, z=z)
    state = torch.zeros(BATCH, HEADS, WIDTH, SIZE, dtype=torch.float64)
    A, D, bias = A[:, None, None].expand(-1, WIDTH, SIZE), D[:, None].expand(-1, WIDTH), bias[:, None].expand(-1, WIDTH)
    for t in range(LENGTH):
        dt_t = dt[:, t, :, None].expand(-1, -1, WIDTH)
        y = selective_state_update(state, x[:, t], dt_t, A, B[:, t], C[:, t], D, z[:, t], bias, dt_softplus=True)
        torch.testing.assert_close(y, expected_y[:, t], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(state, expected_h, rtol=1e-10, atol=1e-12)


def test_state_update_in_half_precision_keeps_the_dtypes_of_its_arguments():
    state = torch.zeros(BATCH, CHANNELS, SIZE, dtype=torch.bfloat16)
    x = torch.randn(BATCH, CHANNELS, dtype=torch.bfloat16)
    B = torch.randn(BATCH, SIZE, dtype=torch.bfloat16)
    y = selective_state_update(state, x, x.abs(), -torch.ones(CHANNELS, SIZE), B, B)
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.bfloat16)
    expected = x.float().abs()[..., None] * x.float()[..., None] * B.float()[:, None]
    torch.testing.assert_close(state.float(), expected, rtol=1e-2, atol=1e-2)


def test_gradients_pass_through_a_state_that_was_overwritten():
    """transformers PR #29563: a cache mutated after autograd had kept it."""
    x = random(BATCH, CHANNELS).requires_grad_()
    state, A, B = random(BATCH, CHANNELS, SIZE), -torch.ones(CHANNELS, SIZE), random(BATCH, SIZE)
    y = selective_state_update(state, x, torch.ones_like(x), A, B, B)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient, (B * B).sum(-1, keepdim=True).expand_as(x))


@pytest.mark.parametrize(
    "option",
    [{"cu_seqlens": torch.tensor([0, 11])}, {"return_varlen_states": True}, {"state_dtype": torch.float32}],
    ids=str,
)
def test_chunk_scan_refuses_by_name_what_it_does_not_have(option):
    x, dt, A, B, C, _, _ = head_inputs()
    with pytest.raises(NotImplementedError, match=next(iter(option))):
        mamba_chunk_scan_combined(x, dt, A, B, C, 4, dt_softplus=True, **option)


def test_chunk_scan_refuses_a_start_for_packed_sequences():
    x, dt, A, B, C, _, _ = head_inputs()
    seq_idx, start = torch.zeros(BATCH, LENGTH, dtype=torch.int32), random(BATCH, HEADS, WIDTH, SIZE)
    with pytest.raises(NotImplementedError, match="initial_states"):
        mamba_chunk_scan_combined(x, dt, A, B, C, 4, seq_idx=seq_idx, initial_states=start)


@pytest.mark.parametrize("seq_idx", [torch.zeros(BATCH, LENGTH + 1).int(), torch.zeros(BATCH, LENGTH)])
def test_chunk_scan_refuses_a_seq_idx_that_does_not_fit(seq_idx):
    x, dt, A, B, C, _, _ = head_inputs()
    with pytest.raises(ValueError, match="seq_idx must hold integers"):
        mamba_chunk_scan_combined(x, dt, A, B, C, 4, seq_idx=seq_idx)


def test_chunk_scan_refuses_padding_marks():
    x, dt, A, B, C, _, _ = head_inputs()
    with pytest.raises(ValueError, match="seq_idx must be >= 0"):
        mamba_chunk_scan_combined(x, dt, A, B, C, 4, seq_idx=torch.full((BATCH, LENGTH), -1))


def test_state_update_refuses_rows_picked_by_index():
    state, x, B = random(BATCH, CHANNELS, SIZE), torch.ones(BATCH, CHANNELS), random(BATCH, SIZE)
    with pytest.raises(NotImplementedError, match="state_batch_indices"):
        selective_state_update(state, x, x, -torch.ones(6, 3), B, B, state_batch_indices=torch.arange(BATCH))


def test_shapes_that_do_not_fit_are_named_as_the_peer_names_them():
    u, delta, _, _, _ = inputs()
    A, B = -torch.ones(CHANNELS, SIZE), random(BATCH, SIZE, LENGTH)
    with pytest.raises(ValueError, match="delta must have shape"):
        selective_scan_fn(u, delta[..., 1:], A, B, B)
    with pytest.raises(ValueError, match="dt must have shape"):
        selective_state_update(random(BATCH, CHANNELS, SIZE), u[..., 0], delta[:, 1:, 0], A, B[..., 0], B[..., 0])
