"""Many small training runs on one machine: packed onto a GPU, resumable, each with the record of how it was made.

`experiments.study` decides what is trained. Every finished run is one small JSON file in the folder, named by a digest
of its definition; a sweep that was stopped goes on with the runs that have none.

How runs share a GPU: a model of two layers is some hundreds of kernels that take microseconds each, so one run leaves
the GPU idle nearly all the time, first because Python launches slowly, then because a small kernel fills a fraction of
it. Every run's training step is therefore a CUDA graph on a stream of its own (`experiments.lane`), compiled by
torch.compile into fewer kernels, and a worker process replays those of several runs in turn. Workers are processes,
because building, compiling and capturing is Python's work. Their kernels overlap only under NVIDIA's MPS; without it
the GPU serves one process at a time. Start it before, if you may: `nvidia-cuda-mps-control -d`. Several GPUs are dealt
out to the workers in turn.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from experiments import machine
from experiments.lane import Lane
from ssm_kit.lab import Settings, Task
from ssm_kit.lab.checkpoint import write_atomically
from ssm_kit.models import ModelConfig


@dataclass(frozen=True)
class Run:
    """One training run and what is asked of it at the end."""

    labels: dict[str, Any]
    """What a figure plots by, such as {"mixer": "Mamba2", "d_state": 16}."""
    model: ModelConfig
    task: Task
    settings: Settings
    evaluations: dict[str, Task] = field(default_factory=dict)
    """Tasks to evaluate the trained model on, by name, besides the one that it was trained on."""

    def definition(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        tasks = {name: _task(task) for name, task in self.evaluations.items()}
        parts = {"labels": self.labels, "model": self.model.to_dict(), "task": _task(self.task)}
        return json.loads(json.dumps({**parts, "settings": asdict(self.settings), "evaluations": tasks}))

    @property
    def key(self) -> str:
        """A digest of the definition: the name of the run's file."""
        return hashlib.sha256(json.dumps(self.definition(), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Plan:
    """How to work the runs off."""

    folder: Path
    commit: str
    workers: int = 1
    lanes: int = 1
    device: str = "cpu"
    deadline: float = float("inf")
    """By time.time(): runs that are not finished then are dropped, and trained anew by the next sweep."""


def command_line(what: str, *more: str) -> argparse.Namespace:
    """What many training runs are asked for, and those of `machine.OPTIONS` that are named."""
    options = machine.arguments(what, "folder", "workers", "lanes", "device", "minutes", *more).parse_args()
    if options.workers == 1:
        # Streams share hardware queues, 8 unless told otherwise, and then wait for each other without need. It must be
        # said before anything asks for a GPU. Among several processes MPS shares them out.
        os.environ["CUDA_DEVICE_MAX_CONNECTIONS"] = "32"
    return options


def planned(options: argparse.Namespace, folder: Path) -> Plan:
    """The plan that a command line asks for; its minutes begin now."""
    deadline = time.time() + 60 * options.minutes
    return Plan(folder, options.commit, options.workers, options.lanes, options.device, deadline)


def sweep(runs: Sequence[Run], plan: Plan) -> list[str]:
    """Train all runs that have no file yet, the longest first; return the tracebacks of those that failed.

    Raises:
        ValueError: two runs with one definition, less than one worker or lane.
    """
    by_key = {run.key: run for run in runs}
    for name, holds, got in (
        ("runs", len(by_key) == len(runs), f"{len(runs) - len(by_key)} defined twice"),
        ("workers", plan.workers >= 1, plan.workers),
        ("lanes", plan.lanes >= 1, plan.lanes),
    ):
        if not holds:
            raise ValueError(f"{name}: expected {'different runs' if name == 'runs' else 'at least 1'}; got {got}")
    plan.folder.mkdir(parents=True, exist_ok=True)
    done = finished(runs, plan.folder)
    waiting = sorted((run for key, run in by_key.items() if key not in done), key=_work, reverse=True)
    with tqdm(total=len(runs), initial=len(done), unit="run") as bar:
        if plan.workers == 1 or len(waiting) <= 1:
            return [failure for failure in work(waiting, plan, bar) if failure]
        return _in_processes(waiting, plan, bar)


def work(runs: Sequence[Run], plan: Plan, bar: tqdm | None = None) -> Iterator[str | None]:
    """One worker: advance several runs in turn, one step each; for every run that ends, yield None or a traceback."""
    waiting, lanes = deque(runs), deque[tuple[Run, Lane, float]]()
    while (waiting or lanes) and time.time() < plan.deadline:
        try:
            if waiting and len(lanes) < plan.lanes:
                run = waiting.popleft()
                lanes.append((run, Lane(run.model, run.task, run.settings, plan.device), time.perf_counter()))
                continue
            run, lane, start = lanes.popleft()
            if not lane.finished:
                lane.advance()
                lanes.append((run, lane, start))
                continue
            text = json.dumps(_record(run, lane, plan, time.perf_counter() - start), indent=1)
            write_atomically(plan.folder / f"{run.key}.json", text + "\n")
            failure = None
        except Exception:  # one run's failure is not that of the others
            failure = f"{run.labels}: {traceback.format_exc()}"
        if bar is not None:
            bar.update()
        yield failure


def finished(runs: Sequence[Run], folder: Path) -> dict[str, dict[str, Any]]:
    """The records of the runs that are done, by key. A file that does not parse does not count: it is made again."""
    records = {}
    for run in runs:
        try:
            records[run.key] = json.loads((folder / f"{run.key}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
    return records


def collect(script: str, what: str, runs: Sequence[Run], folder: Path, data: Any) -> dict[str, Any]:
    """The result that these runs gave, by the schema of `ssm_kit.results`. Raises ValueError if they cannot be one."""
    records = list(finished(runs, folder).values())
    made = [record["made"] for record in records]
    parts = {
        "seeds": sorted({record["run"]["settings"]["seed"] for record in records}),
        "wall_s": round(sum(record["seconds"] for record in records), 1),
        "settings": {
            "runs": len(runs),
            "commits": sorted({one["commit"] for one in made}),
            "wall_s": "sum over runs, several at a time",
            **_common(records),
        },
        "data": data,
    }
    return machine.result(script, what, machine.on_any_gpu(made), parts)


def _in_processes(waiting: list[Run], plan: Plan, bar: tqdm) -> list[str]:
    context, failures = multiprocessing.get_context("spawn"), []
    shares = [share for share in shared_out(waiting, plan.workers) if share]
    queue: Any = context.Queue()
    jobs = [(share, plan, place, queue) for place, share in enumerate(shares)]
    processes = [context.Process(target=_worker, args=job) for job in jobs]
    for process in processes:
        process.start()
    left = len(processes)
    while left:
        kind, value = queue.get()
        left -= kind == "end"
        if kind == "run":
            bar.update()
            failures += [value] if value else []
    for process in processes:
        process.join()
    return failures


def shared_out(waiting: Sequence[Run], workers: int) -> list[list[Run]]:
    """The runs of each worker: those of one model in a row, which is compiled once, up to an equal share."""
    most = -(-len(waiting) // workers)
    models: dict[str, list[Run]] = {}
    for run in waiting:
        models.setdefault(json.dumps(run.model.to_dict()), []).append(run)
    rows = [runs[start : start + most] for runs in models.values() for start in range(0, len(runs), most)]
    return [[run for row in rows[i::workers] for run in row] for i in range(workers)]


def _worker(share: list[Run], plan: Plan, place: int, queue: Any) -> None:
    torch.set_num_threads(1)
    machine.take_gpu(place, plan.device)
    try:
        for failure in work(share, plan):
            queue.put(("run", failure))
    finally:
        queue.put(("end", None))


def _record(run: Run, lane: Lane, plan: Plan, seconds: float) -> dict[str, Any]:
    tasks = {"": run.task, **run.evaluations}
    return {
        "run": run.definition(),
        "evaluation": {name: lane.evaluate(task) for name, task in tasks.items()},
        "curve": lane.curve(),
        "parameters": sum(p.numel() for p in lane.model.parameters()),
        "seconds": round(seconds, 3),
        "made": machine.provenance(plan.commit, plan.device),
    }


def _common(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The training settings and task that all runs share."""
    first = records[0]["run"]
    return {
        part: {
            name: value
            for name, value in first[part].items()
            if all(record["run"][part].get(name) == value for record in records)
        }
        for part in ("task", "settings")
    }


def _task(task: Task) -> dict[str, Any]:
    return {"name": task.name, **asdict(task)}


def _work(run: Run) -> int:
    return run.settings.steps * run.settings.batch_size * run.task.length * run.model.d_model
