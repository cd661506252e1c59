"""`recurrence` against the state equation written out, and the properties that make it linear and time invariant."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from systems import KINDS, LENGTHS, make_system, step_by_step, systems

from ssm_kit.lti import half_life, recurrence

lengths = st.sampled_from(LENGTHS[:8])
TIGHT = {"rtol": 1e-12, "atol": 1e-12}


def run(system, x, **options):
    return recurrence(system.A_bar, system.B_bar, system.C, x, D=system.D, **options)


@given(system=systems, length=lengths)
@settings(max_examples=50)
def test_equals_the_state_equation_written_out(system, length):
    x = system.inputs(length)
    one_by_one = [
        step_by_step(type(system)(*(part[channel] for part in system)), x[(..., *channel)])
        for channel in np.ndindex(system.channels)
    ]
    expected = np.stack(one_by_one, -1).reshape(x.shape)
    np.testing.assert_allclose(run(system, x), expected, **TIGHT)


@given(system=systems, length=lengths, a=st.floats(-3, 3), b=st.floats(-3, 3))
@settings(max_examples=30)
def test_linear(system, length, a, b):
    x, z = system.inputs(length, seed=1), system.inputs(length, seed=2)
    np.testing.assert_allclose(run(system, a * x + b * z), a * run(system, x) + b * run(system, z), **TIGHT)


@given(system=systems, length=lengths, delay=st.integers(0, 9))
@settings(max_examples=30)
def test_time_invariant_and_causal(system, length, delay):
    x = system.inputs(length)
    late = np.concatenate([np.zeros((delay, *system.channels)), x])
    y = run(system, late)
    np.testing.assert_array_equal(y[:delay], 0)
    np.testing.assert_allclose(y[delay:], run(system, x), **TIGHT)


@given(system=systems, length=st.integers(2, 40), data=st.data())
@settings(max_examples=40)
def test_a_sequence_can_be_split_anywhere(system, length, data):
    x = system.inputs(length, batch=(2,))
    cut = data.draw(st.integers(1, length - 1))
    whole, states = run(system, x, return_states=True)
    first, before = run(system, x[:, :cut], return_states=True)
    second, after = run(system, x[:, cut:], initial_state=before[:, -1], return_states=True)
    np.testing.assert_array_equal(np.concatenate([first, second], 1), whole)
    np.testing.assert_array_equal(np.concatenate([before, after], 1), states)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize("batch", [(), (2,), (2, 4)])
def test_shapes_batches_and_torch(kind, channels, batch):
    system = make_system(kind, channels, size=5, seed=3)
    x = system.inputs(7, batch)
    y, states = run(system, x, return_states=True)
    assert y.shape == x.shape
    assert states.shape == (*x.shape, 5)
    index = (1,) * len(batch)
    np.testing.assert_allclose(run(system, x[index]), y[index], rtol=1e-14, atol=1e-14)
    theirs = recurrence(*(torch.from_numpy(part) for part in system[:3]), torch.from_numpy(x), D=torch.tensor(system.D))
    np.testing.assert_allclose(theirs.numpy(), y, **TIGHT)


def test_a_state_read_through_c_is_the_output():
    system = make_system("dense", (2,), size=3, seed=0)
    x = system.inputs(5)
    y, states = run(system, x, return_states=True)
    np.testing.assert_allclose(y, (system.C * states).sum(-1) + system.D * x, rtol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_dtype_is_kept(dtype):
    parameters = [np.full(3, 0.5, dtype)] * 3
    x = np.ones(4, dtype)
    y, states = recurrence(*parameters, x, D=2.0, return_states=True)
    assert y.dtype == states.dtype == dtype
    y, states = recurrence(*map(torch.from_numpy, parameters), torch.from_numpy(x), D=2.0, return_states=True)
    assert str(y.dtype) == str(states.dtype) == f"torch.{dtype}"


def test_real_input_and_complex_poles_give_complex_output():
    y = recurrence(np.array([0.9j]), np.ones(1), np.ones(1), np.array([1.0, 0.0, 0.0]))
    np.testing.assert_allclose(y, [1, 0.9j, -0.81], rtol=1e-15)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind):
    system = make_system(kind, (2,), size=3, seed=5)
    values = (*system[:3], system.inputs(4), system.D, np.ones((2, 3)) * system.B_bar)
    leaves = [torch.tensor(value, requires_grad=True) for value in values]

    def run_with_state(A_bar, B_bar, C, x, D, state):
        return recurrence(A_bar, B_bar, C, x, D=D, initial_state=state, return_states=True)

    assert torch.autograd.gradcheck(run_with_state, leaves)


class TestHalfLife:
    @pytest.mark.parametrize(
        ("a_bar", "steps"),
        [
            (0.9, 6.5788),
            (0.99, 68.968),
            (0.5, 1),
            (-0.5, 1),
            (0.3 + 0.4j, 1),
            (1.0, math.inf),
            (1.05, math.inf),
            (0, 0),
        ],
    )
    def test_values(self, a_bar, steps):
        assert half_life(a_bar) == pytest.approx(steps, rel=1e-5)

    @given(a_bar=st.floats(1e-3, 1 - 1e-6))
    def test_definition(self, a_bar):
        assert a_bar ** float(half_life(a_bar)) == pytest.approx(0.5, rel=1e-9)

    @pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
    def test_arrays(self, dtype):
        a_bar, expected = np.array([[0.5, 0.0], [1.0, -2.0]], dtype), [[1, 0], [math.inf, math.inf]]
        real = {"complex64": "float32", "complex128": "float64"}.get(dtype, dtype)
        ours, theirs = half_life(a_bar), half_life(torch.from_numpy(a_bar))
        np.testing.assert_array_equal(ours, expected)
        np.testing.assert_array_equal(theirs.numpy(), expected)
        assert ours.dtype == theirs.numpy().dtype == real

    def test_gradient(self):
        a_bar = torch.tensor([0.7, 0.0, 1.0, -0.4], dtype=torch.float64, requires_grad=True)
        fading = half_life(a_bar)[[0, 3]].sum()
        (slope,) = torch.autograd.grad(fading, a_bar)
        size = np.array([0.7, 0.4])
        np.testing.assert_allclose(
            slope[[0, 3]], np.array([1, -1]) * math.log(2) / (size * np.log(size) ** 2), rtol=1e-12
        )
        np.testing.assert_array_equal(slope[[1, 2]], 0)

    @pytest.mark.parametrize("bad", [math.nan, math.inf, np.array([1, 2])])
    def test_bad_input(self, bad):
        with pytest.raises(ValueError, match=r"a_bar must (be finite|have dtype)"):
            half_life(bad)


ONE, TWO = np.ones(2), np.ones((3, 2))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (
            (np.ones(3), ONE, ONE, ONE),
            {},
            r"A_bar must have shape \(2,\) .* or \(2, 2\) .* beside B_bar .*; got \(3,\)",
        ),
        (
            (np.ones((1, 3, 2)), np.ones((1, 3, 2)), ONE, ONE),
            {},
            r"B_bar must have shape \(N,\) or \(D, N\); got \(1, 3,",
        ),
        ((ONE, ONE, np.ones(3), ONE), {}, r"C must have shape \(2,\) \(the shape of B_bar\); got \(3,\)"),
        ((ONE, ONE, ONE, np.ones(0)), {}, r"x must have shape \(\.\.\., L\) with L >= 1; got \(0,\)"),
        ((ONE, ONE, ONE, 1.0), {}, r"x must have shape \(\.\.\., L\) with L >= 1; got \(\)"),
        ((TWO, TWO, TWO, np.ones((5, 4))), {}, r"x must have shape \(\.\.\., L, 3\) with L >= 1; got \(5, 4\)"),
        ((TWO, TWO, TWO, np.ones(3)), {}, r"x must have shape \(\.\.\., L, 3\) with L >= 1; got \(3,\)"),
        ((TWO, TWO, TWO, np.ones((0, 3))), {}, r"x must have shape \(\.\.\., L, 3\) with L >= 1; got \(0, 3\)"),
        ((ONE, ONE, ONE, np.array([1.0, np.nan])), {}, "x must be finite; got nan"),
        ((ONE, ONE, ONE, ONE), {"D": ONE}, r"D must have shape \(\), one number; got \(2,\)"),
        ((TWO, TWO, TWO, np.ones((4, 3))), {"D": ONE}, r"D must have shape \(\) or \(3,\), one number .*; got \(2,\)"),
        ((ONE, ONE, ONE, ONE), {"initial_state": np.ones(3)}, r"initial_state must have shape \(2,\) .*; got \(3,\)"),
        ((ONE, ONE, ONE, TWO), {"initial_state": ONE}, r"initial_state must have shape \(3, 2\) .*; got \(2,\)"),
        ((ONE, ONE, ONE, ONE), {"initial_state": torch.ones(2)}, r"all numpy or all torch; .* initial_state \(torch\)"),
        ((ONE, ONE, ONE, np.array([1, 2])), {}, "x must have dtype .*; got int64"),
    ],
)
def test_bad_input(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        recurrence(*arguments, **options)
