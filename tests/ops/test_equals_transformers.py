"""The operators equal the functions that transformers' Mamba and Mamba-2 models call, in values and every gradient.

Qwen3-Next's functions are in test_gated_delta.py. Theirs compute in float32 at most.
"""

import pytest
import torch
from oracles import SINGLE, assert_close, assert_same
from torch import Tensor

from ssm_kit.ops import selective_scan, ssd, ssd_step

LENGTH = 70


@pytest.fixture
def noise():
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(shape, generator=generator)


def test_selective_scan_equals_mamba_selective_scan(noise):
    """transformers.models.mamba: channels before time, (B, D, L), and the step size's bias and softplus inside."""
    from transformers.models.mamba.modeling_mamba import mamba_selective_scan

    batch, channels, states = 2, 6, 5
    tensors = {name: noise(batch, LENGTH, channels) for name in ("x", "delta", "z")}
    tensors |= {name: noise(batch, LENGTH, states) for name in ("B", "C")}
    tensors |= {"A": -noise(channels, states).exp(), "D": noise(channels), "delta_bias": noise(channels)}

    def theirs(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, z: Tensor, **rest: Tensor):
        x, delta, B, C, z = (tensor.mT for tensor in (x, delta, B, C, z))
        y, state = mamba_selective_scan(x, delta, A, B, C, z=z, delta_softplus=True, return_last_state=True, **rest)
        return y.mT, state

    def ours(**tensors: Tensor):
        return selective_scan(**tensors, delta_softplus=True, return_final_state=True)

    assert_same(ours, theirs, tensors, **SINGLE)


@pytest.fixture
def mamba2(noise):
    """x, delta, A, B, C, D and the bias for 1 < G < H."""
    batch, heads, width, groups, states = 2, 6, 4, 2, 5
    tensors = {"x": noise(batch, LENGTH, heads, width), "delta": noise(batch, LENGTH, heads), "D": noise(heads)}
    tensors |= {name: noise(batch, LENGTH, groups, states) for name in ("B", "C")}
    return tensors | {"A": -noise(heads).exp(), "delta_bias": noise(heads)}, noise(batch, heads, width, states)


def test_ssd_equals_mamba2_chunk_scan(mamba2):
    """transformers.models.mamba2, over several chunks and a shorter last one."""
    from transformers.models.mamba2.modeling_mamba2 import mamba2_chunk_scan

    tensors, state = mamba2

    def theirs(delta_bias: Tensor, initial_state: Tensor, **tensors: Tensor):
        tensors["dt"], tensors["hidden_states"] = tensors.pop("delta"), tensors.pop("x")
        options = {"dt_bias": delta_bias, "dt_softplus": True, "initial_states": initial_state}
        return mamba2_chunk_scan(**tensors, chunk_size=16, return_final_states=True, **options)

    def ours(**tensors: Tensor):
        return ssd(**tensors, delta_softplus=True, chunk_size=16, return_final_state=True)

    assert_same(ours, theirs, tensors | {"initial_state": state}, **SINGLE)


def test_ssd_step_equals_mamba2_selective_state_update(mamba2):
    """Theirs takes every per-head number spread over the head's channels, and writes the state in place."""
    from transformers.models.mamba2.modeling_mamba2 import mamba2_selective_state_update

    tensors, state = mamba2
    now = {name: tensor[:, 0] if tensor.ndim > 2 else tensor for name, tensor in tensors.items()}
    y, following = ssd_step(**now, state=state, delta_softplus=True)
    width, states = state.shape[-2:]
    spread = {name: now[name][..., None].expand(*now[name].shape, width) for name in ("delta", "D", "delta_bias")}
    A = now["A"][:, None, None].expand(-1, width, states)
    theirs = mamba2_selective_state_update(
        state, now["x"], spread["delta"], A, now["B"], now["C"],
        D=spread["D"], dt_bias=spread["delta_bias"], dt_softplus=True,
    )  # fmt: skip
    assert_close(y, theirs, 1e-5, "y")
    assert_close(following, state, 1e-5, "state")
