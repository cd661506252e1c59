"""Recall and the size of the state: models of equal size, and the effect at the smoke size."""

import re

import matplotlib.pyplot as plt
import pytest
import torch

from experiments import recall_capacity
from experiments.small_models import count
from ssm_kit import results
from ssm_kit.lab import MQAR
from ssm_kit.models import LanguageModel
from ssm_kit.models.block import build_layer
from ssm_kit.results import plots
from ssm_kit.results.summary import summarise

NAME = "recall_capacity"
STORED = ["stored"] * (NAME in results.names())


@pytest.fixture(scope="module")
def smoke(run_smoke) -> dict:
    return run_smoke(NAME)


@pytest.fixture(params=["smoke", *STORED])
def result(request) -> dict:
    return request.getfixturevalue("smoke") if request.param == "smoke" else results.load(NAME)


def mean_accuracy(result: dict, mixer: str) -> list[float]:
    """Over all numbers of pairs, for every size from the smallest; before the mixer there may be a small window."""
    named = [entry for entry in result["data"]["summary"] if re.fullmatch(rf"(window \d \+ )?{mixer}", entry["mixer"])]
    entries = [entry for entry in named if not entry["filled"]]
    assert [entry["state_bytes"] for entry in entries] == sorted(entry["state_bytes"] for entry in entries)
    tests = [[found["mean"] for test, found in entry["accuracy"].items() if "pairs" in test] for entry in entries]
    return [sum(found) / len(found) for found in tests]


def test_schema(smoke):
    results.validate(smoke, NAME)


def test_summary_is_what_the_rows_say(result):
    assert result["data"]["summary"] == summarise(result["data"]["rows"])


def test_recall_rises_with_the_state(result):
    smallest, *_, largest = mean_accuracy(result, "sliding window")
    assert largest > smallest + 0.1


def test_attention_recalls_what_a_small_window_does_not(result):
    assert mean_accuracy(result, "attention")[0] > mean_accuracy(result, "sliding window")[0] + 0.2


def test_plot_draws_the_summary(result):
    figure = plots.recall_capacity(result)
    entries = [entry for entry in result["data"]["summary"] if not entry["filled"]]
    most = max(int(test.split()[0]) for test in entries[0]["accuracy"] if "pairs" in test)
    drawn = [point for line in figure.axes[0].lines for point in zip(*line.get_data(), strict=True)]
    assert drawn == [(entry["state_bytes"], entry["accuracy"][f"{most} pairs"]["mean"]) for entry in entries]
    labels = [line.get_label() for line in figure.axes[1].lines]
    assert labels == list(dict.fromkeys(entry["mixer"] for entry in entries))
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[1].lines}
    assert len(looks) == len(labels)
    with pytest.raises(ValueError, match=r"^pairs: expected one of .*; got 3$"):
        plots.recall_capacity(result, 3)
    plt.close(figure)


def test_full_study_has_a_control_at_equal_parameters_and_states_that_span_a_factor_of_16():
    spans: dict[str, list[int]] = {}
    controls = set()
    for run in recall_capacity.full().architectures:
        if run.labels["filled"]:
            assert abs(count(run.model) / recall_capacity.PARAMETERS - 1) < 0.06
            controls.add(run.labels["mixer"])
        else:
            with torch.device("meta"):
                spans.setdefault(run.labels["mixer"], []).append(LanguageModel(run.model).init_cache(1).nbytes)
    assert controls == spans.keys()
    for mixer in {"S4D", "Mamba", "Mamba-2", "delta rule", "Gated DeltaNet", "RG-LRU", "window 4 + linear attention"}:
        assert max(spans[mixer]) > 9 * min(spans[mixer])  # the inputs of the convolutions do not grow


def test_the_delta_rule_never_learns_to_forget():
    torch.manual_seed(0)
    layer = build_layer(8, "delta rule", recall_capacity.delta_rule(4))
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        layer(torch.randn(2, 8, 8))[0].square().mean().backward()
        optimizer.step()
    steps = torch.nn.functional.softplus(layer.dt_bias + 100)  # larger than any that the input adds
    assert (torch.exp(-layer.A_log.exp() * steps) == 1).all()


def test_mixed_recall_asks_every_number_of_pairs_in_turn():
    task = recall_capacity.MixedMQAR(16, 16, 4, random_filler=False, counts=(1, 4))
    for index, pairs in enumerate((1, 4, 1)):
        batch = task.batch(3, seed=5, index=index)
        assert batch.mask.sum(1).tolist() == [pairs] * 3
        expected = MQAR(16, 16, pairs, random_filler=False).batch(3, seed=5, index=index)
        assert torch.equal(batch.inputs, expected.inputs)
