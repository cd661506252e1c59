"""`causal_conv1d`: the definition against numbers and torch's convolution, the fast form against it."""

from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from oracles import DOUBLE, assert_close, assert_same, evaluate, strided
from torch import Tensor

from ssm_kit.ops import causal_conv1d, causal_conv1d_step

BACKENDS = ("reference", "torch")


def make(
    length: int, *, batch: int = 2, channels: int = 5, width: int = 4, seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> dict[str, Tensor]:  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "x": (batch, length, channels),
        "weight": (channels, width),
        "bias": (channels,),
        "initial_state": (batch, width - 1, channels),
    }
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for name, shape in shapes.items()
    }


def run(backend: str, **options):
    """The operator as a function of keyword tensors that returns (y, state)."""
    return lambda **tensors: causal_conv1d(**tensors, **options, backend=backend, return_final_state=True)


def part(tensors: dict[str, Tensor], now: slice | int) -> dict[str, Tensor]:
    """The arguments for a span of time, or for one step; without the state."""
    return {"x": tensors["x"][:, now], "weight": tensors["weight"], "bias": tensors["bias"]}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 2, 11])
def test_equals_the_equation_number_by_number(backend, width, length):
    tensors = make(length, width=width)
    y, state = run(backend)(**tensors)
    x, weight, bias, before = (tensors[name].numpy() for name in tensors)
    inputs = np.concatenate([before, x], axis=1)
    expected = np.zeros(x.shape)
    for b, t, d in np.ndindex(expected.shape):
        expected[b, t, d] = bias[d] + sum(weight[d, k] * inputs[b, t + k, d] for k in range(width))
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(state, inputs[:, length:])


@pytest.mark.parametrize("activation", [None, "silu", "swish"])
def test_equals_torch_on_a_padded_sequence(activation):
    """The layout of weights is that of `nn.Conv1d(D, D, W, groups=D, padding=W - 1)`, cut to L, as models hold it."""
    tensors = make(23)
    del tensors["initial_state"]
    convolved = F.conv1d(
        tensors["x"].mT, tensors["weight"][:, None], tensors["bias"], padding=3, groups=5
    ).mT[:, :23]  # fmt: skip
    expected = convolved if activation is None else F.silu(convolved)
    assert_close(causal_conv1d(**tensors, activation=activation), expected, 1e-12)


@given(
    length=st.sampled_from([1, 2, 3, 4, 5, 31, 64, 97]),
    batch=st.integers(1, 3),
    channels=st.sampled_from([1, 3, 8]),
    width=st.integers(1, 5),
    activation=st.sampled_from([None, "silu"]),
    left_out=st.sets(st.sampled_from(["bias", "initial_state"])),
    in_order=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60)
def test_fast_equals_the_definition(length, batch, channels, width, activation, left_out, in_order, seed):
    """Values and every gradient, also through the final state: sequences shorter than the taps, strided memory."""
    tensors = make(length, batch=batch, channels=channels, width=width, seed=seed)
    tensors = {name: tensor for name, tensor in tensors.items() if name not in left_out}
    wanted = evaluate(run("reference", activation=activation), tensors)
    memory = tensors if in_order else {name: strided(tensor) for name, tensor in tensors.items()}
    found = evaluate(run("torch", activation=activation), memory)
    for name in wanted:
        tolerance = DOUBLE["values" if name.startswith("output") else "gradients"]
        if wanted[name].numel():  # a single tap has an empty state
            assert_close(found[name], wanted[name], tolerance, name)


def test_single_precision():
    single = make(97, dtype=torch.float32)
    double = {name: tensor.double() for name, tensor in single.items()}
    found = evaluate(run("torch", activation="silu"), single)
    wanted = evaluate(run("reference", activation="silu"), double)
    for name in wanted:
        assert_close(found[name], wanted[name].float(), 1e-5, name)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cut", [1, 2, 3, 10, 16])
def test_a_sequence_can_be_split_anywhere(backend, cut):
    """Also where a part is shorter than the taps, so that the state reaches through it."""

    def split(**tensors):
        first, state = run(backend)(**part(tensors, slice(cut)), initial_state=tensors["initial_state"])
        second, state = run(backend)(**part(tensors, slice(cut, None)), initial_state=state)
        return torch.cat([first, second], 1), state

    assert_same(split, run(backend), make(17), **DOUBLE)


@pytest.mark.parametrize("width", [1, 4])
def test_step_by_step_equals_parallel(width):
    tensors = make(9, width=width)
    y, final = run("torch", activation="silu")(**tensors)
    state = tensors["initial_state"]
    for t in range(9):
        y_t, state = causal_conv1d_step(**part(tensors, t), state=state, activation="silu")
        assert_close(y_t, y[:, t], 1e-12, f"y_{t}")
    torch.testing.assert_close(state, final, rtol=0, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bounds", [[0, 9], [0, 1, 9], [0, 2, 3, 4, 30]])
def test_packed_sequences_equal_separate_ones(backend, bounds):
    """No tap reaches over a boundary, and every sequence has its own state."""
    tensors = make(bounds[-1], batch=1)
    tensors["initial_state"] = make(1, batch=len(bounds) - 1)["initial_state"]

    def separate(**tensors):
        states = tensors["initial_state"].split(1)
        pieces = [slice(*pair) for pair in pairwise(bounds)]
        runs = [run(backend)(**part(tensors, piece), initial_state=h) for piece, h in zip(pieces, states, strict=True)]
        return tuple(torch.cat(parts, axis) for parts, axis in zip(zip(*runs, strict=True), (1, 0), strict=True))

    assert_same(run(backend, cu_seqlens=torch.tensor(bounds)), separate, tensors, **DOUBLE)


def test_first_and_second_derivatives_of_the_definition():
    tensors = make(4, batch=1, channels=2, width=3)
    leaves = [tensor.requires_grad_() for tensor in tensors.values()]

    def function(*values):
        return run("reference", activation="silu")(**dict(zip(tensors, values, strict=True)))

    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


def test_a_second_derivative_of_the_fast_form_is_refused():
    tensors = make(5)
    x = tensors.pop("x").requires_grad_()
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(causal_conv1d(x, **tensors, backend="torch").square().sum(), x, create_graph=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_twice_forward_twice_backward_inputs_unchanged_all_gradients_there(backend):
    """Neither pass writes into what it was given (transformers #29563); no gradient is missing (mamba-ssm-macos #7)."""
    tensors = make(9)
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    first, second = (evaluate(run(backend), tensors) for _ in range(2))
    _, state = causal_conv1d_step(**part(tensors, 0), state=tensors["initial_state"])
    state.zero_()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=0)
        assert (value != 0).any()
    for name in tensors:
        torch.testing.assert_close(tensors[name], before[name], rtol=0, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_single(backend, dtype):
    tensors = {name: tensor.to(dtype) for name, tensor in make(9).items()}
    (y, state) = run(backend)(**tensors)
    expected = run(backend)(**{name: tensor.float() for name, tensor in tensors.items()})
    assert (y.dtype, state.dtype) == (dtype, torch.float32)
    torch.testing.assert_close(y, expected[0].to(dtype), rtol=0, atol=0)
    torch.testing.assert_close(state, expected[1], rtol=0, atol=0)


BAD = [
    ({"x": torch.zeros(2, 7)}, r"x must have shape \(B, L, D\); got \(2, 7\)"),
    ({"x": torch.zeros(2, 0, 5)}, r"x must have shape \(B, L, D\) without an empty axis; got \(2, 0, 5\)"),
    ({"x": torch.zeros(2, 7, 5).int()}, r"x must have a dtype of float16, .*; got int32"),
    ({"weight": torch.zeros(4, 5)}, r"weight must have shape \(D, W\) = \(5, W\); got \(4, 5\)"),
    ({"weight": torch.zeros(5, 1, 4)}, r"weight must have shape \(D, W\); got \(5, 1, 4\)"),
    ({"bias": torch.zeros(4)}, r"bias must have shape \(D,\) = \(5,\); got \(4,\)"),
    ({"initial_state": torch.zeros(2, 5, 3)}, r"initial_state must have shape \(B, W - 1, D\) = \(2, 3, 5\); got"),
    ({"activation": "gelu"}, r"activation must be one of None, 'silu', 'swish'; got 'gelu'"),
    ({"backend": "fast"}, r"backend must be one of 'auto', 'reference', 'torch', 'cuda'; got 'fast'"),
    ({"cu_seqlens": torch.tensor([0, 7])}, r"cu_seqlens must come with tensors of batch size 1.*; got batch 2"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        causal_conv1d(**make(7) | change)


def test_a_bad_step_is_named():
    with pytest.raises(ValueError, match=r"state must have shape \(B, W - 1, D\) = \(2, 3, 5\); got \(2, 4, 5\)"):
        causal_conv1d_step(**part(make(7), 0), state=torch.zeros(2, 4, 5))


def test_gpu_kernels_want_a_gpu():
    with pytest.raises(ValueError, match='backend="cuda" must be given tensors on a CUDA device; got cpu'):
        causal_conv1d(**make(5), backend="cuda")
