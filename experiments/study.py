"""A study of architectures: a learning rate for each, chosen with one seed, then fresh seeds at that rate.

    python -m experiments.recall_capacity --workers 4 --lanes 8 --minutes 9     # again until all runs are finished
    python -m experiments.recall_capacity --out ssm_kit/results/recall_capacity.json
    python -m experiments.recall_capacity --smoke

The seed that chose the rate is not among those reported, so the choice cannot flatter. Finished runs are small files in
`runs/NAME`; `experiments.sweep` says how many of them share a GPU. The result keeps a row for every run, those of the
search too, and the summary that `ssm_kit.results.summary` makes of them.
"""

import functools
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from experiments import machine, sweep
from experiments.sweep import Plan, Run
from ssm_kit.models import LanguageModel, ModelConfig
from ssm_kit.results.summary import summarise

SEARCH_SEED = 0

Evaluation = dict[str, dict[str, Any]]
"""For each test {"accuracy": ..., "loss": ...}; the test "" is the task that the model was trained on."""


def accuracy(evaluation: Evaluation) -> float:
    """The mean accuracy over all tests of a run."""
    return sum(test["accuracy"] for test in evaluation.values()) / len(evaluation)


def likelihood(evaluation: Evaluation) -> float:
    """How little is lost on fresh examples of the task that the model was trained on."""
    loss = evaluation[""]["loss"]
    return -float("inf") if loss is None else -loss


def answered(evaluation: Evaluation) -> float:
    """The accuracy on fresh examples of the task that the model was trained on, in steps of a hundredth.

    For tasks that can be solved: there the loss of a solved run says no more than how fast it went on, and prefers
    rates at which other seeds fail. With this score all rates that solve the task are equal, and the lowest is taken.
    """
    return round(evaluation[""]["accuracy"], 2)


@dataclass(frozen=True)
class Study:
    """What is trained.

    Args:
        architectures: one run for each; its learning rate and seed are replaced.
        rates: learning rates to try, the lowest first: of equals the first is taken.
        seeds: of the reported runs, other than SEARCH_SEED.
        family: names of the labels that a rate is chosen for: all architectures that agree in them share the rate
            that was best for the first. Empty for a choice for every architecture.
        score: `accuracy`, `answered` or `likelihood`; the rate where it is greatest is the best.
        measures: what the result keeps of every test.
        notes: what a reader of the result should know besides, for its settings.
    """

    architectures: Sequence[Run]
    rates: Sequence[float]
    seeds: Sequence[int]
    family: tuple[str, ...] = ()
    score: Callable[[Evaluation], float] = likelihood
    measures: tuple[str, ...] = ("accuracy", "loss")
    notes: dict[str, Any] = field(default_factory=dict)

    def trials(self) -> list[Run]:
        """The first architecture of every family at every rate, with SEARCH_SEED; nothing if there is only one rate."""
        if len(self.rates) == 1:
            return []
        firsts: dict[str, Run] = {}
        for run in self.architectures:
            firsts.setdefault(self.family_of(run), run)
        return [_at(run, rate, SEARCH_SEED) for run in firsts.values() for rate in self.rates]

    def finals(self, records: dict[str, dict[str, Any]]) -> list[Run]:
        """Every architecture with every seed at its family's best rate, by the records of all trials."""
        best = {self.family_of(run): (-float("inf"), self.rates[0]) for run in self.architectures}
        for run in self.trials():
            score = self.score(records[run.key]["evaluation"])
            if score > best[self.family_of(run)][0]:
                best[self.family_of(run)] = (score, run.settings.learning_rate)
        return [_at(run, best[self.family_of(run)][1], seed) for run in self.architectures for seed in self.seeds]

    def family_of(self, run: Run) -> str:
        """What all runs that share a rate have in common."""
        return repr([value for name, value in run.labels.items() if name in self.family or not self.family])


def main(name: str, what: str, full: Callable[[], Study], smoke: Callable[[], Study]) -> None:
    """The command line of a study: train what is missing, then write the result if all runs are there."""
    options = sweep.command_line(what, "smoke")
    if options.smoke:
        options.device = "cpu"
        torch.set_num_threads(1)
    _quick_matrices()
    with tempfile.TemporaryDirectory() as nothing_yet:
        folder = options.folder or (Path(nothing_yet) if options.smoke else Path("runs") / name)
        plan = sweep.planned(options, folder)
        study = smoke() if options.smoke else full()
        machine.write(options.out, conduct(f"experiments/{name}.py", what, study, plan))


def conduct(script: str, what: str, study: Study, plan: Plan) -> dict[str, Any]:
    """Search, then train the reported runs; the result by the schema of `ssm_kit.results`.

    Raises SystemExit, with what failed, if runs are missing at the plan's deadline.
    """
    trials = study.trials()
    finals = study.finals(_trained(trials, plan) if trials else {})
    records = _trained(finals, plan)
    searched = sweep.finished(trials, plan.folder)
    rows = [_row(record, "search", study.measures) for record in searched.values()]
    rows += [_row(record, "final", study.measures) for record in records.values()]
    data = {"rows": rows, "summary": summarise(rows)}
    result = sweep.collect(script, what, [*trials, *finals], plan.folder, data)
    result["seeds"] = list(study.seeds)
    result["settings"] |= {
        "learning_rates": list(study.rates),
        "search_seed": SEARCH_SEED,
        "matrix_products": "TF32" if result["gpu"] else "float32",
        **study.notes,
    }
    return result


def _trained(runs: list[Run], plan: Plan) -> dict[str, dict[str, Any]]:
    """The records of all these runs; those that are missing are trained first."""
    failures = sweep.sweep(runs, plan)
    records = sweep.finished(runs, plan.folder)
    if missing := len(runs) - len(records):
        raise SystemExit("\n".join([*failures, f"{missing} of {len(runs)} runs are not finished: call again"]))
    return records


def _at(run: Run, rate: float, seed: int) -> Run:
    return replace(run, settings=replace(run.settings, learning_rate=rate, seed=seed))


def _row(record: dict[str, Any], stage: str, measures: tuple[str, ...]) -> dict[str, Any]:
    """What a result keeps of a run."""
    run, tests = record["run"], record["evaluation"]
    return {
        **run["labels"],
        "stage": stage,
        "seed": run["settings"]["seed"],
        "learning_rate": run["settings"]["learning_rate"],
        "parameters": record["parameters"],
        "state_bytes": state_bytes(json.dumps(run["model"]), run["task"]["length"]),
        **{
            measure: {test or "trained on": _rounded(found[measure]) for test, found in tests.items()}
            for measure in measures
        },
    }


@functools.cache  # many runs have one model
def state_bytes(config: str, length: int) -> int:
    """Bytes that a model in float32 carries from one token to the next after `length` of them, caches included.

    `config` is the `ModelConfig` as JSON.
    """
    model = LanguageModel(ModelConfig.from_dict(json.loads(config)))
    with torch.no_grad():
        return model(torch.zeros(1, length, dtype=torch.int64))[1].nbytes


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 5)


def _quick_matrices() -> None:
    """Matrix products of float32 in TF32 on a GPU, here and, by the variable, in the processes started later."""
    os.environ["TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"] = "1"
    torch.backends.cuda.matmul.allow_tf32 = True
