"""Hybrids: stacks of equal size at every fraction and placement, and one attention layer at the smoke size."""

import matplotlib.pyplot as plt
import pytest

from experiments import hybrid_fraction
from experiments.small_models import count
from ssm_kit import results
from ssm_kit.results import plots
from ssm_kit.results.summary import summarise

NAME = "hybrid_fraction"
STORED = ["stored"] * (NAME in results.names())


@pytest.fixture(scope="module")
def smoke(run_smoke) -> dict:
    return run_smoke(NAME)


@pytest.fixture(params=["smoke", *STORED])
def result(request) -> dict:
    return request.getfixturevalue("smoke") if request.param == "smoke" else results.load(NAME)


def recall(result: dict, attention: int) -> float:
    """Mean over all numbers of pairs of the stack with so many attention layers, spread."""
    (entry,) = (
        entry
        for entry in result["data"]["summary"]
        if (entry["task"], entry["attention"], entry["placement"]) == ("recall", attention, "spread")
    )
    found = [found["mean"] for test, found in entry["accuracy"].items() if "pairs" in test]
    return sum(found) / len(found)


def test_schema_and_summary(result):
    results.validate(result, NAME)
    assert result["data"]["summary"] == summarise(result["data"]["rows"])


def test_one_attention_layer_lifts_recall(result):
    assert recall(result, 1) > recall(result, 0) + 0.1


def test_text_is_measured_as_a_loss(result):
    losses = [row["loss"]["held out"] for row in result["data"]["rows"] if row["task"] == "text"]
    assert losses
    assert all(0 < loss < 50 for loss in losses)


def test_plot_draws_every_placement_over_the_fractions(result):
    figure = plots.hybrid_fraction(result)
    for axes, task in zip(figure.axes, ("recall", "text"), strict=True):
        entries = [entry for entry in result["data"]["summary"] if entry["task"] == task]
        assert [line.get_label() for line in axes.lines] == list(dict.fromkeys(e["placement"] for e in entries))
        shares = sorted({100 * entry["attention"] / entry["layers"] for entry in entries})
        assert all(line.get_xdata().tolist() == shares for line in axes.lines)
    without = figure.axes[0].lines[0].get_ydata()[0]
    assert without == pytest.approx(recall(result, 0))
    plt.close(figure)


def test_full_study_compares_stacks_of_equal_size():
    for task in ("recall", "text"):
        stacks = [run for run in hybrid_fraction.full().architectures if run.labels["task"] == task]
        assert len(stacks) == 2 + 4 * 4
        sizes = [count(run.model) for run in stacks]
        assert max(sizes) < 1.01 * min(sizes)
        assert all(16 - run.model.pattern.count("M") == run.labels["attention"] for run in stacks)


def test_rows_are_those_of_the_schedule():
    assert hybrid_fraction.rows(4, (0, 1, 4), ("spread", "first", "last")) == {
        (0, "spread"): "MMMM",
        (1, "spread"): "MM*M",
        (1, "first"): "*MMM",
        (1, "last"): "MMM*",
        (4, "spread"): "w***",
    }
