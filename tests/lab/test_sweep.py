"""The sweep runner: each run is what `train` gives, finished runs are kept, failures are named, results are valid."""

import json
import time
from dataclasses import replace

import pytest
import torch

from experiments import sweep
from experiments.lane import Lane
from experiments.sweep import Plan, Run
from ssm_kit import results
from ssm_kit.lab import MQAR, Settings, evaluate, train
from ssm_kit.models import LanguageModel, ModelConfig

COMMIT = "0123abc"
TASK = MQAR(length=16, pairs=3, vocab_size=32)


def run(d_model=8, seed=0, steps=6, **settings):
    block = {"layer": "Mamba2", "d_state": 4, "headdim": 8, "chunk_size": 8}
    config = ModelConfig(vocab_size=32, d_model=d_model, pattern="MM", blocks={"M": block})
    settings = Settings(steps=steps, batch_size=4, warmup=2, seed=seed, **settings)
    return Run({"mixer": "Mamba2", "d_model": d_model}, config, TASK, settings, {"1 pair": replace(TASK, pairs=1)})


RUNS = [run(seed=0), run(seed=1), run(d_model=16)]


def plan(folder, **changes):
    return replace(Plan(folder=folder, commit=COMMIT), **changes)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """The folder of a sweep, with two of its three runs in one process at a time."""
    folder = tmp_path_factory.mktemp("sweep")
    assert sweep.sweep(RUNS, plan(folder, lanes=2)) == []
    return folder


def test_a_run_is_what_train_gives(swept):
    for one in RUNS:
        torch.manual_seed(one.settings.seed)
        model = LanguageModel(one.model)
        expected = train(model, one.task, one.settings, progress=False)
        record = json.loads((swept / f"{one.key}.json").read_text())
        for name in ("step", "loss", "accuracy"):
            # The loop sums in float64; here every step's sums are float32.
            assert [point[name] for point in record["curve"]] == pytest.approx([e[name] for e in expected], rel=1e-6)
        assert record["evaluation"][""] == evaluate(model, one.task, batch_size=4)
        assert record["evaluation"]["1 pair"] == evaluate(model, one.evaluations["1 pair"], batch_size=4)
        assert record["parameters"] == sum(p.numel() for p in model.parameters())


def test_a_lane_ends_with_the_weights_of_train_to_the_bit():
    lane = Lane(RUNS[0].model, TASK, RUNS[0].settings, "cpu")
    while not lane.finished:
        lane.advance()
    torch.manual_seed(0)
    model = LanguageModel(RUNS[0].model)
    train(model, TASK, RUNS[0].settings, progress=False)
    for name, tensor in model.state_dict().items():
        assert torch.equal(lane.model.state_dict()[name], tensor), name


def test_finished_runs_are_not_run_again_but_broken_files_are(swept):
    kept, broken = (swept / f"{one.key}.json" for one in RUNS[:2])
    before, content = kept.stat().st_mtime_ns, json.loads(broken.read_text())
    broken.write_text(broken.read_text()[:50])
    assert set(sweep.finished(RUNS, swept)) == {RUNS[0].key, RUNS[2].key}
    assert sweep.sweep(RUNS, plan(swept)) == []
    assert kept.stat().st_mtime_ns == before
    again = json.loads(broken.read_text())
    for changing in ("seconds", "made"):
        assert again.pop(changing).__class__ is content.pop(changing).__class__
    assert again == content


def test_two_processes_finish_all_runs_and_name_the_one_that_fails(tmp_path):
    wrong = replace(run(), task=replace(TASK, vocab_size=64))  # tokens that the model does not know
    failures = sweep.sweep([*RUNS, wrong], plan(tmp_path, workers=2, lanes=2))
    assert len(failures) == 1
    assert "'d_model': 8" in failures[0]
    assert "ids must be from 0 to 31" in failures[0]
    assert set(sweep.finished([*RUNS, wrong], tmp_path)) == {one.key for one in RUNS}


def test_after_the_deadline_nothing_is_begun_and_the_next_call_goes_on(tmp_path):
    assert sweep.sweep(RUNS[:1], plan(tmp_path, deadline=time.time() - 1)) == []
    assert list(tmp_path.iterdir()) == []
    sweep.sweep(RUNS[:1], plan(tmp_path))
    assert len(list(tmp_path.iterdir())) == 1


def test_a_run_that_diverges_is_a_result(tmp_path):
    one = run(learning_rate=1e30, clip=1e30, steps=4)
    assert sweep.sweep([one], plan(tmp_path)) == []
    record = json.loads((tmp_path / f"{one.key}.json").read_text())
    assert record["evaluation"][""]["loss"] is None
    assert record["curve"][-1]["loss"] is None
    assert 0 <= record["evaluation"][""]["accuracy"] < 0.5


def test_the_result_follows_the_schema(swept, tmp_path):
    result = sweep.collect("experiments/recall.py", "Recall", RUNS, swept, [1.0])
    results.validate(result, "recall")
    assert (result["seeds"], result["data"]) == ([0, 1], [1.0])
    assert result["settings"]["task"]["pairs"] == 3
    assert "seed" not in result["settings"]["settings"]  # it is not the same in all
    file = swept / f"{RUNS[0].key}.json"
    record = json.loads(file.read_text())
    record["made"]["gpu"] = "another"
    copied = tmp_path / file.name
    copied.write_text(json.dumps(record))
    (tmp_path / f"{RUNS[1].key}.json").write_text((swept / f"{RUNS[1].key}.json").read_text())
    with pytest.raises(ValueError, match=r"expected runs of one gpu; got \['None', 'another'\]"):
        sweep.collect("experiments/recall.py", "Recall", RUNS[:2], tmp_path, [1.0])


@pytest.mark.parametrize(
    ("runs", "change", "message"),
    [
        ([run(), run()], {}, "runs: expected different runs; got 1 defined twice"),
        (RUNS, {"workers": 0}, "workers: expected at least 1; got 0"),
        (RUNS, {"lanes": 0}, "lanes: expected at least 1; got 0"),
    ],
)
def test_bad_arguments_are_named(tmp_path, runs, change, message):
    with pytest.raises(ValueError, match=message):
        sweep.sweep(runs, plan(tmp_path, **change))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own, where torch.compile begins
@pytest.mark.filterwarnings("ignore:TensorFloat32:UserWarning")  # advice of inductor's; float32 is meant
def test_graphs_on_several_streams_give_what_eager_steps_give(tmp_path):
    runs = [run(d_model=d_model, seed=seed, steps=20) for d_model in (16, 32) for seed in (0, 1, 2)]
    assert sweep.sweep(runs, plan(tmp_path, device="cuda", lanes=6)) == []
    for one in runs:
        torch.manual_seed(one.settings.seed)
        expected = train(LanguageModel(one.model).cuda(), one.task, one.settings, progress=False)
        record = json.loads((tmp_path / f"{one.key}.json").read_text())
        assert [point["loss"] for point in record["curve"]] == pytest.approx([e["loss"] for e in expected], rel=1e-3)


def test_runs_of_one_model_go_to_one_worker():
    runs = [run(d_model=d_model, seed=seed) for seed in (0, 1) for d_model in (8, 16, 24)]
    shares = sweep.shared_out(runs, 2)
    assert [[(one.model.d_model, one.settings.seed) for one in share] for share in shares] == [
        [(8, 0), (8, 1), (24, 0), (24, 1)],
        [(16, 0), (16, 1)],
    ]
    assert sweep.shared_out(runs[:1], 3) == [runs[:1], [], []]
    assert [len(share) for share in sweep.shared_out([run(seed=seed) for seed in range(5)], 3)] == [2, 2, 1]
