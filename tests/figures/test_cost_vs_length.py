"""CostVsLength: the browser's numbers are those of ssm_kit.cost, and its parameters hold together."""

import math
from dataclasses import asdict

import numpy as np
import pytest

from ssm_kit import cost
from ssm_kit.figures import CostVsLength
from ssm_kit.figures.cost_vs_length import SSM

CASES = 200


@pytest.fixture(scope="module")
def cases():
    """Random stacks, presets among them, each with a number of attention layers and a length."""
    rng = np.random.default_rng(0)

    def whole(low, high):
        return int(rng.integers(low, high, endpoint=True))

    def stack():
        return cost.Stack(
            d_model=32 * whole(1, 512), layers=whole(1, 128), query_heads=whole(1, 128), kv_heads=whole(1, 32),
            head_dim=whole(1, 512), mlp_width=whole(1, 65536), mlp_matrices=whole(2, 3),
        )  # fmt: skip

    stacks = [*cost.PRESETS.values(), *(stack() for _ in range(CASES - len(cost.PRESETS)))]
    return [(s, whole(1, s.layers), whole(1, 2**20)) for s in stacks]


def sent(stack):
    """A stack as the figure sends it to the browser."""
    return {**asdict(stack), **SSM}


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize(("name", "method"), [("sequenceWork", "sequence_work"), ("tokenWork", "token_work")])
def test_work(javascript, cases, name, method):
    results = javascript("cost.js", [[name, sent(s), a, n] for s, a, n in cases])
    for (stack, attention, tokens), found in zip(cases, results, strict=True):
        work = getattr(stack, method)(attention, tokens)
        close([found["score"], found["linear"], found["scan"]], [work.score, work.linear, work.scan])


def test_memory(javascript, cases):
    results = javascript("cost.js", [["memory", sent(s), a, n] for s, a, n in cases])
    for (stack, attention, tokens), found in zip(cases, results, strict=True):
        held = stack.memory(attention, tokens)
        close([found["cache"], found["state"]], [held.cache, held.state])


def test_crossovers(javascript, cases):
    calls = [["scoreCrossover", sent(s), a] for s, a, _ in cases]
    for (stack, attention, _), found in zip(cases, javascript("cost.js", calls), strict=True):
        context = cost.crossover_context(stack.weights(attention), attention * stack.query_width)
        close([found["context"], found["sequence"]], [context, 2 * context - 1])
    calls = [["memoryCrossover", sent(s), a, s.layers] for s, a, _ in cases]
    for (stack, attention, _), found in zip(cases, javascript("cost.js", calls), strict=True):
        close(found, cost.crossover_tokens(stack.memory(0, 1).state, stack.memory(attention, 1).cache))


def test_terms_meet_at_the_crossover(javascript):
    """The length that the figure marks, put back into the formulas: 53,247 tokens, or a context of 26,624."""
    stack = cost.PRESETS["8B"]
    (found,) = javascript("cost.js", [["scoreCrossover", sent(stack), 32]])
    assert found == {"context": 26624, "sequence": 53247}
    whole, last = stack.sequence_work(32, 53247), stack.token_work(32, 26624)
    assert whole.score == whole.linear
    assert last.score == last.linear


def test_surprise():
    """What the figure exists for: at 2,048 tokens the score term is a single-digit share of a Transformer's work."""
    for preset, stack in cost.PRESETS.items():
        work = stack.sequence_work(stack.layers, 2048)
        assert work.score / work.total < (0.2 if preset == "130M" else 0.1)


def test_presets_reach_the_browser():
    state = CostVsLength().get_state()
    assert state["_presets"] == {name: sent(stack) for name, stack in cost.PRESETS.items()}


def test_all_layers_attend_unless_given():
    for preset, stack in cost.PRESETS.items():
        figure = CostVsLength(preset=preset)
        assert (figure.attention_layers, figure._layers) == (stack.layers, stack.layers)
        assert figure.panel.children[-1].max == stack.layers
    figure = CostVsLength(preset="70B", attention_layers=10)
    assert (figure.attention_layers, figure._layers) == (10, 80)
    assert repr(figure) == "CostVsLength(length=1024, preset='70B', attention_layers=10)"


def test_another_preset_keeps_the_share():
    figure = CostVsLength(attention_layers=4)
    figure.preset = "70B"
    assert (figure.attention_layers, figure._layers) == (10, 80)
    figure.preset = "130M"
    assert (figure.attention_layers, figure._layers) == (2, 12)  # 1.5 rounds up, as in the browser


def test_a_message_from_the_browser_is_taken_whole():
    """The browser has already kept the share: Python must not do it twice."""
    figure = CostVsLength(attention_layers=4)
    figure.set_state({"preset": "70B", "attention_layers": 10, "_layers": 80})
    assert (figure.preset, figure.attention_layers, figure._layers) == ("70B", 10, 80)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"attention_layers": 33}, "attention_layers must be at most 32 with preset '8B', got 33"),
        ({"attention_layers": 13, "preset": "130M"}, "at most 12"),
        ({"attention_layers": -1}, "attention_layers must be a whole number from 0 to 80, got -1"),
        ({"length": 255}, "length must be a whole number from 256 to 1048576, got 255"),
        ({"length": math.nan}, "length must be a whole number"),
        ({"preset": "9B"}, "preset must be one of '130M', '8B', '70B', got '9B'"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        CostVsLength(**parameters)


def test_still_picture():
    """The still shows the share and the bytes of its own parameters."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas()
    CostVsLength(length=32768, attention_layers=4).draw(canvas)
    work_axes, memory_axes = canvas.axes
    stack = cost.PRESETS["8B"]
    work = stack.sequence_work(4, 32768)
    assert f"{100 * work.score / work.total:.1f} %" in work_axes.get_title(loc="center")
    assert memory_axes.get_title(loc="center") == "Cache 512 MiB, state 56 MiB"
    drawn = {line.get_label(): line.get_ydata()[-1] for line in work_axes.lines}
    at_the_end = stack.sequence_work(4, 2**20)
    assert drawn["total"] == at_the_end.total
    assert drawn["attention scores"] == at_the_end.score
