"""The study: the best rate of each family goes to fresh seeds, nothing is trained twice, the summary is the rows'."""

import time
from dataclasses import replace

import pytest

from experiments import study
from experiments.small_models import count, stack, widened
from experiments.study import Study, answered, likelihood
from experiments.sweep import Plan, Run
from ssm_kit import results
from ssm_kit.lab import MQAR, Settings
from ssm_kit.results.summary import summarise

TASK = MQAR(vocab_size=16, length=8, pairs=2)
SETTINGS = Settings(steps=2, batch_size=4, warmup=1)
RATES, SEEDS = (1e-4, 0.1), (1, 2)


def run(states: int) -> Run:
    config = stack([{"layer": "S4D", "d_state": states}], vocab_size=16, d_model=4)
    return Run({"mixer": "S4D", "size": states}, config, TASK, SETTINGS, {"1 pair": replace(TASK, pairs=1)})


STUDY = Study([run(2), run(4)], RATES, SEEDS, notes={"remark": "small"})


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return Plan(tmp_path_factory.mktemp("runs"), "0123abc")


@pytest.fixture(scope="module")
def result(plan):
    return study.conduct("experiments/small.py", "a small study", STUDY, plan)


def test_result_is_valid_and_keeps_every_run(result):
    results.validate(result, "small")
    assert result["seeds"] == [1, 2]
    assert result["settings"]["remark"] == "small"
    stages = [(row["stage"], row["size"], row["seed"]) for row in result["data"]["rows"]]
    assert stages == [("search", n, 0) for n in (2, 2, 4, 4)] + [("final", n, seed) for n in (2, 4) for seed in SEEDS]


def test_finals_take_the_best_rate_of_the_search(result):
    rows = result["data"]["rows"]
    for size in (2, 4):
        mine = [row for row in rows if row["size"] == size]
        best = min((row for row in mine if row["stage"] == "search"), key=lambda row: row["loss"]["trained on"])
        assert {row["learning_rate"] for row in mine if row["stage"] == "final"} == {best["learning_rate"]}
        assert len({row["loss"]["trained on"] for row in mine}) == len(mine)


def test_a_family_shares_the_rate_of_its_first():
    shared = replace(STUDY, family=("mixer",))
    trials = shared.trials()
    assert [trial.labels["size"] for trial in trials] == [2, 2]
    losses = dict(zip((trial.key for trial in trials), (2.0, 1.0), strict=True))
    finals = shared.finals({key: {"evaluation": {"": {"loss": loss}}} for key, loss in losses.items()})
    assert {final.settings.learning_rate for final in finals} == {RATES[1]}
    assert [(final.labels["size"], final.settings.seed) for final in finals] == [(2, 1), (2, 2), (4, 1), (4, 2)]


def test_of_rates_that_answer_as_much_the_lowest_is_taken():
    rates = (1e-3, 2e-3, 4e-3)
    some = replace(STUDY, architectures=STUDY.architectures[:1], rates=rates, score=answered)
    for accuracies, best in (((0.9, 0.996, 1.0), 2e-3), ((0.2, 0.1, 0.3), 4e-3), ((0.501, 0.504, 0.499), 1e-3)):
        found = zip(some.trials(), accuracies, strict=True)
        records = {trial.key: {"evaluation": {"": {"accuracy": accuracy}}} for trial, accuracy in found}
        assert {final.settings.learning_rate for final in some.finals(records)} == {best}


def test_one_rate_needs_no_search_and_a_loss_that_is_no_number_never_wins():
    alone = replace(STUDY, rates=(1e-3,))
    assert alone.trials() == []
    assert {final.settings.learning_rate for final in alone.finals({})} == {1e-3}
    assert likelihood({"": {"loss": None}}) < likelihood({"": {"loss": 1e9}})


def test_nothing_is_trained_twice(result, plan):
    before = {path: path.stat().st_mtime_ns for path in plan.folder.iterdir()}
    again = study.conduct("experiments/small.py", "a small study", STUDY, plan)
    assert {path: path.stat().st_mtime_ns for path in plan.folder.iterdir()} == before
    assert again == result


def test_a_study_that_is_stopped_says_what_is_missing(tmp_path):
    with pytest.raises(SystemExit, match="4 of 4 runs are not finished"):
        study.conduct("experiments/small.py", "a small study", STUDY, Plan(tmp_path, "0123abc", deadline=time.time()))


def test_summary_of_rows_that_can_be_checked_by_eye(result):
    assert result["data"]["summary"] == summarise(result["data"]["rows"])
    rows = [
        {"mixer": "x", "stage": stage, "seed": seed, "learning_rate": 1, "accuracy": {"a": hit}, "loss": {"a": loss}}
        for stage, seed, hit, loss in (("search", 0, 0.9, 1.0), ("final", 1, 0.25, 2.0), ("final", 2, 0.75, None))
    ]
    accuracy = {"a": {"mean": 0.5, "low": 0.25, "high": 0.75}}
    assert summarise(rows) == [{"mixer": "x", "accuracy": accuracy, "loss": {"a": None}}]


def test_widened_models_are_as_large_as_a_width_can_make_them():
    for mixers, step in (([{"layer": "Mamba"}], 8), ([{"layer": "Mamba2", "headdim": 64}, {"layer": "S4D"}], 32)):
        model = widened(mixers, vocab_size=8, parameters=60_000)
        sizes = {d: count(stack(mixers, vocab_size=8, d_model=d)) for d in range(step, 257, step)}
        assert abs(count(model) - 60_000) == min(abs(size - 60_000) for size in sizes.values())
    with pytest.raises(ValueError, match=r"^mixers: expected some that take a multiple of 8 as d_model; got .*"):
        widened([{"layer": "Attention", "num_heads": 7, "head_dim": 0}], vocab_size=8, parameters=100)
