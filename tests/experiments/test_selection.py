"""Selective copying and induction heads: models of equal size, and what tells them apart at the smoke size."""

from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch

from experiments import induction_heads, selective_copying
from experiments.selection import FACTORS, TEST_TOKENS
from experiments.small_models import count
from ssm_kit import results
from ssm_kit.results import plots
from ssm_kit.results.summary import summarise

NAMES = ("selective_copying", "induction_heads")
STORED = [(name, "stored") for name in NAMES if name in results.names()]


@pytest.fixture(scope="module")
def smoke(run_smoke) -> dict[str, dict]:
    return {name: run_smoke(name) for name in NAMES}


@pytest.fixture(params=[*((name, "smoke") for name in NAMES), *STORED], ids=" ".join)
def result(request, smoke) -> dict:
    name, size = request.param
    return smoke[name] if size == "smoke" else results.load(name)


def score(result: dict, mixer: str, measure: str = "accuracy") -> dict[str, float]:
    """{"mean", "low", "high"} over seeds at the first length of the tests, which is the one trained on."""
    (entry,) = (entry for entry in result["data"]["summary"] if entry["mixer"] == mixer)
    lengths = sorted(int(test) for test in entry[measure] if test.isdigit())
    assert lengths[0] == result["settings"]["trained_on"]
    return entry[measure][str(lengths[0])]


def test_schema_and_summary(result):
    results.validate(result, result["script"])
    assert result["data"]["summary"] == summarise(result["data"]["rows"])


def test_stored_runs_have_the_lowest_rate_that_answers_most():
    for name, _ in STORED:
        rows = results.load(name)["data"]["rows"]
        for mixer in {row["mixer"] for row in rows}:
            mine = [row for row in rows if row["mixer"] == mixer]
            tried = {r["learning_rate"]: round(r["accuracy"]["trained on"], 2) for r in mine if r["stage"] == "search"}
            lowest = min(rate for rate, answered in tried.items() if answered == max(tried.values()))
            assert {row["learning_rate"] for row in mine if row["stage"] == "final"} == {lowest}


def test_selection_solves_selective_copying_and_neither_time_invariance_nor_a_gate_does(smoke):
    found = smoke["selective_copying"]
    rivals = max(score(found, name)["mean"] for name in ("S4D", "gated S4D"))
    assert score(found, "Mamba")["mean"] > rivals + 0.2


def test_whole_sequences_are_copied_by_selection_and_attention_alone():
    found = results.load("selective_copying")
    for name in ("S4D", "gated S4D"):
        assert score(found, name, "exact")["high"] < 0.2
    for name in ("Mamba-2", "RoPE attention", "RoPE + NoPE attention"):
        assert score(found, name, "exact")["low"] > 0.8
    assert score(found, "Mamba", "exact")["high"] > 0.9  # some of its seeds never learn the tokens' order


def test_induction_needs_selection(smoke):
    found = [smoke["induction_heads"]] + [results.load(name) for name, _ in STORED if name == "induction_heads"]
    for result in found:
        assert score(result, "Mamba-2")["mean"] > score(result, "S4D")["mean"] + 0.2


def test_plot_draws_the_summary(result):
    name = Path(result["script"]).stem
    figure = getattr(plots, name)(result)
    measures = ("accuracy", "exact") if name == "selective_copying" else ("accuracy",)
    for axes, measure in zip(figure.axes, measures, strict=True):
        *lines, trained = axes.lines
        for line, entry in zip(lines, result["data"]["summary"], strict=True):
            tests = {int(test): found["mean"] for test, found in entry[measure].items() if test.isdigit()}
            assert (line.get_label(), dict(zip(*line.get_data(), strict=True))) == (entry["mixer"], tests)
        assert trained.get_xdata()[0] == result["settings"]["trained_on"]
    plt.close(figure)


@pytest.mark.parametrize("script", [selective_copying, induction_heads])
def test_full_study_compares_equal_parameters(script):
    architectures = script.full().architectures
    sizes = {run.labels["mixer"]: count(run.model) for run in architectures}
    assert list(sizes)[:4] == ["S4D", "gated S4D", "Mamba", "Mamba-2"]
    assert [name.endswith("attention") for name in sizes] == [False] * 4 + [True] * 2
    assert max(sizes.values()) < 1.03 * min(sizes.values())
    assert [int(test) for test in architectures[0].evaluations] == [script.LENGTH * factor for factor in FACTORS]


@pytest.mark.parametrize("task", [selective_copying.LongCopying(), induction_heads.LongInduction()])
def test_long_tests_come_in_batches_that_fit(task):
    longer = type(task)(length=TEST_TOKENS // 2)
    assert longer.batch(3, seed=0, index=0).inputs.shape == (2, TEST_TOKENS // 2)
    short = task.batch(3, seed=0, index=0)
    assert short.inputs.shape == (3, task.length)
    assert torch.equal(short.inputs, task.batch(3, seed=0, index=0).inputs)
