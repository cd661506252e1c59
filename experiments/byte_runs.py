"""The training runs behind two results, `byte_language_model` and `length_generalisation`: each is made once.

Both scripts take the same arguments and train what their folder lacks:

    python -m experiments.byte_language_model --folder runs/bytes --workers 4 --minutes 8 --out ...json
    python -m experiments.length_generalisation --folder runs/bytes --out ...json

Every mixer is first trained for half the steps at every learning rate, with one seed. The two rates with the lowest
held-out losses are its finalists: both are trained for all steps with other seeds, and the one with the lower held-out
loss at the end, a mean over the seeds, is reported. Half the steps can mislead: the sliding window ended its search
with 0.983 at 0.0005 and 1.009 at 0.001, but all steps with 0.748 and 0.706.

What is reported is thus the better of two, chosen by the seeds and the held-out bytes that it is reported for: its loss
may flatter a little, that of every mixer alike. The search looks at these bytes too, with a seed that is not reported.

A finished run is one small JSON file; a run that was interrupted is trained anew.
"""

import argparse
import json
import math
import multiprocessing
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from experiments import byte_models, machine
from experiments.byte_design import FULL, SMOKE, Design, chosen, finalists
from experiments.byte_evaluation import loss_by_context
from experiments.byte_models import MIXERS
from experiments.lane import Lane
from experiments.sweep import Run, finished
from ssm_kit.lab import ByteText
from ssm_kit.lab.checkpoint import write_atomically

LOOKS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Parts of the training after which the held-out loss is taken."""


def train(run: Run, device: str) -> dict[str, Any]:
    """Train one model and evaluate it: what its file holds, but for the machine."""
    start = time.perf_counter()
    labels, settings, final = run.labels, run.settings, run.labels["stage"] == "final"
    evaluate = partial(
        loss_by_context, longest=labels["contexts"][-1], scored=labels["scored"], precision=settings.precision
    )
    lane = Lane(run.model, run.task, settings, device)
    held_out: list[tuple[int, float]] = []
    for until in sorted({max(1, round(look * settings.steps)) for look in (LOOKS if final else LOOKS[-1:])}):
        while lane.step < until:
            lane.advance()
        machine.wait(device)
        held_out.append((until, evaluate(lane.model, (run.task.length // 2,))[0]))
    trained = time.perf_counter()
    by_context = evaluate(lane.model, labels["contexts"]) if final else []
    return {
        "run": run.definition(),
        "parameters": sum(parameter.numel() for parameter in lane.model.parameters()),
        "held_out": held_out,
        "train": between([point["loss"] for point in lane.curve()], [step for step, _ in held_out]),
        "by_context": by_context,
        "seconds": [round(trained - start, 2), round(time.perf_counter() - trained, 2)],
    }


def complete(design: Design, options: argparse.Namespace) -> tuple[dict[str, float], list[dict], list[dict]]:
    """Train what the folder lacks.

    Returns:
        the chosen learning rates, the records of all runs, and those of the runs that count: finalists at these rates.

    Raises:
        SystemExit: runs failed, or time is up.
    """
    deadline = time.time() + 60 * options.minutes
    searched = _complete(design.search(), options, deadline)
    of_search = finalists(map(facts, searched), design.finalists)
    trained = _complete([run for rates in of_search for run in design.final(rates)], options, deadline)
    rates = chosen(map(facts, trained))
    return rates, [*searched, *trained], list(finished(design.final(rates), options.folder).values())


def facts(record: dict[str, Any]) -> dict[str, Any]:
    """What a result keeps of a run: [step, held-out loss], and the training loss up to there, to four digits."""
    run = record["run"]
    return {
        "stage": run["labels"]["stage"],
        "mixer": run["labels"]["mixer"],
        "learning_rate": run["settings"]["learning_rate"],
        "seed": run["settings"]["seed"],
        "parameters": record["parameters"],
        "held_out": [[step, rounded(loss)] for step, loss in record["held_out"]],
        "train": [rounded(loss) for loss in record["train"]],
    }


def rounded(loss: float | None) -> float | None:
    """To four digits behind the point; None where it is no number."""
    return None if loss is None or not math.isfinite(loss) else round(loss, 4)


def arguments(what: str) -> tuple[Design, argparse.Namespace]:
    """The command line that both scripts have, and the design that it asks for."""
    options = machine.arguments(what, "folder", "workers", "device", "minutes", "smoke").parse_args()
    options.folder = options.folder or Path(tempfile.mkdtemp())
    return SMOKE if options.smoke else FULL, options


def settings(design: Design, records: list[dict[str, Any]]) -> dict[str, Any]:
    """What a result says of how its runs were made: the design, the models, the text, the commits."""
    commits = sorted({record["made"]["commit"] for record in records})
    models = {mixer: byte_models.config(mixer, design.size).to_dict() for mixer in MIXERS}
    text = {part: ByteText(part=part).fingerprint() for part in ("train", "held-out")}
    return json.loads(json.dumps({**asdict(design), "commits": commits, "models": models, "text_sha256": text}))


def _complete(runs: list[Run], options: argparse.Namespace, deadline: float) -> list[dict[str, Any]]:
    """The records of these runs; those that have no file are trained. SystemExit says what is missing, and why."""
    done = finished(runs, options.folder)
    waiting = [run for run in runs if run.key not in done]
    options.folder.mkdir(parents=True, exist_ok=True)
    task = partial(_train_and_write, options=options, deadline=deadline)
    bar = tqdm(_spread(task, waiting, options.workers, options.device), total=len(runs), initial=len(done), unit="run")
    failures = [failure for failure in bar if failure]
    if failures:
        raise SystemExit("\n".join(failures))
    return list(finished(runs, options.folder).values())


def _spread(task: Any, runs: list[Run], workers: int, device: str) -> Iterator[str | None]:
    if workers == 1 or len(runs) < 2:
        yield from map(task, runs)
        return
    context = multiprocessing.get_context("spawn")
    places = context.SimpleQueue()
    for place in range(workers):
        places.put(place)
    with context.Pool(min(workers, len(runs)), _take_place, (places, device)) as pool:
        yield from pool.imap_unordered(task, runs)


def _take_place(places: Any, device: str) -> None:
    machine.take_gpu(places.get(), device)


def _train_and_write(run: Run, options: argparse.Namespace, deadline: float) -> str | None:
    """Train one run and write its file; otherwise say why not."""
    name = f"{run.labels['mixer']}, learning rate {run.settings.learning_rate}, seed {run.settings.seed}"
    if time.time() > deadline:
        return f"{name}: not begun, the time is up"
    torch.set_num_threads(1)
    machine.only_kernels()
    try:
        record = {**train(run, options.device), "made": machine.provenance(options.commit, options.device)}
    except Exception:  # one run's failure is not that of the others
        return f"{name}: {traceback.format_exc()}"
    write_atomically(options.folder / f"{run.key}.json", json.dumps(record) + "\n")
    return None


def between(losses: list[float | None], ends: list[int]) -> list[float | None]:
    """The mean of the training losses up to each end, from the one before; None where one is no number."""
    means: list[float | None] = []
    for start, end in zip([0, *ends], ends, strict=False):
        part = [loss for loss in losses[start:end] if loss is not None]
        means.append(sum(part) / len(part) if len(part) == end - start else None)
    return means
