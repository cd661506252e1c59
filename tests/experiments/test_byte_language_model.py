"""Two results from one set of training runs: the smoke size runs, and what is stored follows from its raw rows."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from experiments.byte_design import SMOKE, chosen, finalists
from experiments.byte_evaluation import loss_by_context
from experiments.byte_language_model import measure
from experiments.byte_models import MIXERS, Size, blocks, config, parameters
from experiments.byte_runs import train
from ssm_kit import results
from ssm_kit.lab.tasks.text import corpus
from ssm_kit.models import LanguageModel
from ssm_kit.results.plots.language import byte_language_model, length_generalisation
from ssm_kit.results.summary import counted

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def smokes(tmp_path_factory) -> dict[str, dict]:
    """Both results at their smoke size, the second from the folder that the first has filled."""
    folder = tmp_path_factory.mktemp("bytes")
    found = {}
    for name in ("byte_language_model", "length_generalisation"):
        out = folder / f"{name}.json"
        command = [sys.executable, "-m", f"experiments.{name}", "--smoke", "--folder", str(folder / "runs")]
        done = subprocess.run(
            [*command, "--out", str(out), "--commit", "0123abc", "--device", "cpu"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        found[name] = json.loads(out.read_text())
        found[f"{name} files"] = sorted((path.name, path.stat().st_mtime_ns) for path in (folder / "runs").iterdir())
    return found


def kinds(name: str) -> list[str]:
    """The smoke result, and the stored one where there is one."""
    return ["smoke", "stored"] if name in results.names() else ["smoke"]


@pytest.fixture(params=kinds("byte_language_model"))
def language(request) -> dict:
    name = "byte_language_model"
    return results.load(name) if request.param == "stored" else request.getfixturevalue("smokes")[name]


@pytest.fixture(params=kinds("length_generalisation"))
def lengths(request) -> dict:
    name = "length_generalisation"
    return results.load(name) if request.param == "stored" else request.getfixturevalue("smokes")[name]


def test_schema_and_script(language, lengths):
    for found in (language, lengths):
        results.validate(found, found["script"])
        assert (ROOT / found["script"]).is_file()


def test_the_second_script_trains_nothing_again(smokes):
    assert smokes["byte_language_model files"] == smokes["length_generalisation files"]


def best_of_search(language: dict) -> list[tuple[str, float]]:
    """Every mixer with its rates that ended the search with the lowest losses: those to be trained for all steps."""
    places = language["settings"]["finalists"]
    searched = [row for row in language["data"]["runs"] if row["stage"] == "search"]
    order = sorted(searched, key=lambda row: row["held_out"][-1][1])
    return [(m, rate) for m in MIXERS for rate in [row["learning_rate"] for row in order if row["mixer"] == m][:places]]


def test_every_mixer_with_every_rate_then_its_finalists_with_every_seed(language):
    settings, data = language["settings"], language["data"]
    rows = [(row["stage"], row["mixer"], row["learning_rate"], row["seed"]) for row in data["runs"]]
    searched = {("search", mixer, rate, 0) for mixer in MIXERS for rate in settings["learning_rates"]}
    final = {("final", *finalist, seed) for finalist in best_of_search(language) for seed in settings["seeds"]}
    assert len(rows) == len(set(rows))
    assert set(rows) == searched | final
    assert 0 not in settings["seeds"]


def test_of_the_finalists_the_one_with_the_lower_mean_loss_counts(language):
    data, ends = language["data"], {finalist: [] for finalist in best_of_search(language)}
    for row in data["runs"]:
        if row["stage"] == "final":
            ends[row["mixer"], row["learning_rate"]].append(row["held_out"][-1][1])
    for mixer, rate in data["learning_rate"].items():
        means = [np.mean(losses) for (name, _), losses in ends.items() if name == mixer]
        assert np.mean(ends[mixer, rate]) == min(means)
    rows = [(row["stage"], row["mixer"], row["learning_rate"], row["seed"]) for row in counted(data)]
    best, seeds = data["learning_rate"].items(), language["settings"]["seeds"]
    assert sorted(rows) == sorted(("final", *mixer_and_rate, seed) for mixer_and_rate in best for seed in seeds)


def test_finalists_are_the_best_of_the_search_and_the_better_one_over_all_seeds_is_chosen():
    def rows(*losses):
        return [{"mixer": "A", "learning_rate": rate, "held_out": [[1, 0.0], [2, loss]]} for rate, loss in losses]

    assert finalists(rows((1, 5.0), (2, 3.0), (4, 4.0), (8, None)), 2) == [{"A": 2}, {"A": 4}]
    assert chosen(rows((2, 1.0), (4, 2.0), (2, 4.0), (4, 2.5))) == {"A": 4}
    assert chosen(rows((2, 1.0), (4, 2.0), (2, None), (4, 2.5))) == {"A": 4}  # one seed was lost


def test_all_models_have_as_many_parameters(language):
    sizes = {row["parameters"] for row in language["data"]["runs"]}
    assert max(sizes) < 1.05 * min(sizes)


def test_all_models_learn(language):
    """From ln 256 = 5.5 nats on: much of it is which bytes occur at all, so this says nothing of who is best."""
    for row in language["data"]["runs"]:
        steps, losses = zip(*row["held_out"], strict=True)
        whole = language["settings"]["steps"]
        assert steps[-1] == (whole if row["stage"] == "final" else whole // 2)
        assert losses[-1] < 5.3
        assert len(row["train"]) == len(steps)
        if row["stage"] == "final":
            assert losses[-1] < min(losses[0], 4.2)


def test_speed_is_the_median(language):
    for speed in language["data"]["speed"].values():
        assert speed["tokens_per_second"] == round(np.median(speed["all"]))


def test_runs_of_both_results_are_the_same_models(smokes):
    """The held-out loss after the last step is that at the context of half the training length."""
    language, lengths = smokes["byte_language_model"], smokes["length_generalisation"]
    rates, settings = lengths["data"]["learning_rate"], lengths["settings"]
    assert rates == language["data"]["learning_rate"]
    index = settings["contexts"].index(settings["length"] // 2)
    by_context = {(row["mixer"], row["seed"]): row["loss"][index] for row in lengths["data"]["runs"]}
    for row in counted(language["data"]):
        assert row["held_out"][-1][1] == pytest.approx(by_context[row["mixer"], row["seed"]], abs=1e-4)


def test_a_sliding_window_never_sees_more_than_its_layers_reach(lengths):
    """Beyond layers · window, more text before a byte cannot change what is said of it."""
    settings = lengths["settings"]
    reach = settings["size"]["layers"] * settings["size"]["window"]
    beyond = [index for index, context in enumerate(settings["contexts"]) if context >= reach]
    assert len(beyond) > 1
    for row in lengths["data"]["runs"]:
        if row["mixer"] == "sliding window":
            losses = np.array(row["loss"])[beyond]
            assert np.ptp(losses) < 2e-3  # what rounding of bfloat16 and of rotary positions leaves
    whole = [np.array(row["loss"])[beyond] for row in lengths["data"]["runs"] if row["mixer"] == "attention"]
    assert max(map(np.ptp, whole)) > 0


def test_state_space_models_stay_within_reach_of_their_loss(lengths):
    """At the smoke size that is all there is to see: what attention loses needs longer training."""
    settings = lengths["settings"]
    at_training = settings["contexts"].index(settings["length"] // 2)
    for row in lengths["data"]["runs"]:
        if row["mixer"] == "Mamba-2":
            assert max(row["loss"][at_training:]) < row["loss"][at_training] + 0.5


def test_the_plot_of_training_draws_means_over_seeds(language):
    data, settings = language["data"], language["settings"]
    for against, per_byte in (("tokens", 1e6), ("seconds", data["speed"]["Mamba-2"]["tokens_per_second"])):
        figure = byte_language_model(language, against)
        runs = [row for row in counted(data) if row["mixer"] == "Mamba-2"]
        for panel in figure.axes:
            lines = {line.get_label(): line for line in panel.lines}
            assert list(lines) == list(MIXERS)
            x, y = lines["Mamba-2"].get_data()
            assert x[-1] == pytest.approx(settings["steps"] * settings["batch_size"] * settings["length"] / per_byte)
            assert y[-1] == pytest.approx(np.mean([row["held_out"][-1][1] for row in runs]) / np.log(2))
        plt.close(figure)
    with pytest.raises(ValueError, match='against: expected "tokens" or "seconds"; got \'steps\''):
        byte_language_model(language, "steps")


def test_the_plot_of_lengths_draws_means_over_seeds(lengths):
    figure = length_generalisation(lengths)
    for panel in figure.axes:
        lines = {line.get_label(): line for line in panel.lines}
        for mixer in MIXERS:
            x, y = lines[mixer].get_data()
            losses = [row["loss"] for row in lengths["data"]["runs"] if row["mixer"] == mixer]
            assert list(x) == [2 * context for context in lengths["settings"]["contexts"]]
            np.testing.assert_allclose(y, np.mean(losses, 0) / np.log(2))
    plt.close(figure)


def test_every_mixer_computes_what_its_name_says():
    size = Size(d_model=32, layers=2, head_dim=16, d_state=16, window=8, d_ff=88)
    assert blocks("sliding window", size)["M"]["window"] == 8
    assert "".join(config("hybrid", size).pattern) == "M-*-"
    for mixer in MIXERS:
        model = LanguageModel(config(mixer, size))
        assert sum(parameter.numel() for parameter in model.parameters()) == parameters(config(mixer, size))
    with pytest.raises(ValueError, match=r"mixer: expected one of attention, .*; got 'RNN'"):
        blocks("RNN", size)


class CountsBytes:
    """Stands for a model: it foretells the next byte surely once it has read `enough` bytes, else knows nothing."""

    def __init__(self, enough: int, window: bool) -> None:
        self.enough = enough
        self.config = config("sliding window" if window else "attention", SMOKE.size)
        self.text = corpus("held-out")

    def parameters(self):
        yield torch.zeros(1)

    def hidden(self, ids, cache=None):
        """The next byte plus 1 where enough was read, 0 elsewhere; the cache holds what was read before."""
        read = ids if cache is None else torch.cat([cache, ids], dim=1)
        where = {bytes(self.text[i : i + read.shape[1]].tolist()): i for i in STARTS}
        starts = torch.tensor([where[bytes(row.tolist())] for row in read])
        seen = torch.arange(read.shape[1] - ids.shape[1], read.shape[1]) + 1
        answers = self.text[starts[:, None] + seen].float() + 1
        return torch.where(seen > self.enough, answers, 0.0)[..., None], read

    def head(self, x):
        return 1000.0 * (x == torch.arange(256) + 1)


STARTS = range(64 - 33, 64 + 64)


@pytest.mark.parametrize("window", [False, True])
def test_losses_are_those_of_the_same_bytes_with_that_much_before_them(window, monkeypatch):
    """Contexts c give c + 1 to 2c bytes: a model that needs more than n of them is sure from c = n on."""
    monkeypatch.setattr("experiments.byte_evaluation.PIECE", 5)
    unsure = np.log(256)
    found = loss_by_context(CountsBytes(8, window), (4, 8, 16), longest=32, scored=64, precision="fp32")
    assert found == pytest.approx([unsure, 0, 0], abs=1e-6)
    found = loss_by_context(CountsBytes(6, window), (4, 8), longest=32, scored=64, precision="fp32")
    assert found == pytest.approx([unsure / 2, 0], abs=1e-6)  # 5 or 6 bytes are too few, 7 or 8 enough


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"contexts": (3,)}, "contexts: expected 1 to 32 dividing 64; got 3"),
        ({"contexts": (64,)}, "contexts: expected 1 to 32 dividing 64; got 64"),
        ({"scored": 2**30}, "scored: expected at most .* of the held-out text; got 1073741824"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {"contexts": (4,), "longest": 32, "scored": 64, "precision": "fp32"} | change
    with pytest.raises(ValueError, match=message):
        loss_by_context(CountsBytes(8, False), **arguments)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own, where torch.compile begins
@pytest.mark.filterwarnings("ignore:TensorFloat32:UserWarning")  # advice of inductor's; float32 is meant
@pytest.mark.parametrize("index", range(len(MIXERS)))
def test_on_a_gpu_a_run_learns_and_its_speed_is_measured(index):
    run = SMOKE.final(dict.fromkeys(MIXERS, 2e-2))[index]
    record = train(replace(run, settings=replace(run.settings, precision="bf16")), "cuda")
    assert 0 < record["held_out"][-1][1] < 4.2
    assert len(record["by_context"]) == len(SMOKE.contexts)
    run = replace(run, settings=replace(run.settings, steps=100))
    speed = measure(run, "cuda")
    assert speed["tokens_per_second"] > 0
    assert speed["peak_bytes"] > 16 * record["parameters"]  # weights, gradients and two moments in float32
