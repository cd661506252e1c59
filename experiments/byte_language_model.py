"""Six byte-level language models of equal size on the source code of Python's standard library.

    python -m experiments.byte_language_model --folder runs/bytes --workers 4 --minutes 8 \
        --out ssm_kit/results/byte_language_model.json
    python -m experiments.byte_language_model --smoke

Attention, sliding window, Mamba, Mamba-2, Gated DeltaNet and a hybrid, 14 million parameters each, read the same bytes
in the same order: `experiments.byte_models` says what they are, `experiments.byte_runs` how they are trained. Speed and
memory of a training step are measured afterwards, one model at a time with nothing else on the machine, since runs that
share a GPU slow each other down. "Loss against seconds" is loss against tokens, divided by that speed. The sliding
window is a mask here: no kernel skips what it hides, so it saves no time at this length.

The result keeps all runs: the search, and both rates of every mixer that were trained for all steps. Of these count,
and are drawn, those at the rate that `learning_rate` names: `ssm_kit.results.summary.counted`.
"""

import gc
import statistics
import time
from typing import Any

import torch

from experiments import byte_runs, machine
from experiments.lane import EAGER_STEPS, Lane
from experiments.sweep import Run

WHAT = "Held-out loss in nats a byte of six language models of equal size, against training tokens; speed and memory"
SCRIPT = "experiments/byte_language_model.py"
REPEATS = 3


def main() -> None:
    """The command line."""
    design, options = byte_runs.arguments(WHAT)
    rates, records, _ = byte_runs.complete(design, options)
    machine.only_kernels()
    data = {
        "learning_rate": rates,
        "runs": [byte_runs.facts(record) for record in records],
        "speed": {run.labels["mixer"]: measure(run, options.device) for run in design.final(rates)[: len(rates)]},
    }
    parts = {
        "seeds": list(design.seeds),
        "wall_s": round(sum(sum(record["seconds"]) for record in records), 1),
        "settings": byte_runs.settings(design, records) | {"wall_s": "sum over runs, several at a time"},
        "data": data,
    }
    made = [machine.provenance(options.commit, options.device), *(record["made"] for record in records)]
    machine.write(options.out, machine.result(SCRIPT, WHAT, made, parts))


def measure(run: Run, device: str) -> dict[str, Any]:
    """Tokens a second of training alone (the median of three, and all), and the most bytes held in a step."""
    gc.collect()
    held = 0
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
    steps = 20 if device == "cuda" else 1
    lane = Lane(run.model, run.task, run.settings, device)
    for _ in range(EAGER_STEPS + 1):
        lane.advance()
    machine.wait(device)
    tokens = steps * run.settings.batch_size * run.task.length
    speeds = [tokens / _seconds(lane, steps, device) for _ in range(REPEATS)]
    return {
        "tokens_per_second": round(statistics.median(speeds)),
        "all": [round(speed) for speed in speeds],
        "peak_bytes": torch.cuda.max_memory_allocated() - held if device == "cuda" else None,
    }


def _seconds(lane: Lane, steps: int, device: str) -> float:
    start = time.perf_counter()
    for _ in range(steps):
        lane.advance()
    machine.wait(device)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
