"""What one more token costs: time, tokens per second, bytes held, against the context, for six models of one width.

    python -m experiments.decoding --folder runs/decoding --out ssm_kit/results/decoding.json
    python -m experiments.decoding --smoke

Attention with 16 and with 4 heads of keys, Mamba, Mamba-2, Gated DeltaNet, and Mamba-2 with 3 of 24 layers of grouped
attention: 24 layers of width 2048, each with the same MLP, random weights in bfloat16. Every time is that of a CUDA
graph of one whole step from embedding to logits: the host does not count. Memories hold random numbers, for how long a
step takes does not depend on them. Attention reads a cache of fixed size (`experiments.static_attention`) in the
fastest of several ways. A recurrent layer reads its state and writes the next one; the next one is not kept, as a
server would write it in place of the old one. Prefill is timed by itself: reading a prompt of that length, up to the
logits of its last token, launched from Python.
"""

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments import machine
from experiments.decoding_models import FULL, SMOKE, Size, configs, decode, memories
from experiments.static_attention import WAYS, StaticAttention, with_buffers
from ssm_kit.lab.checkpoint import write_atomically
from ssm_kit.layers import state_bytes
from ssm_kit.models import LanguageModel, ModelConfig

WHAT = "Milliseconds of a decoding step and of prefill, tokens a second and bytes held, against context, six models"
SCRIPT = "experiments/decoding.py"
SHARE = 0.92
"""Of the free memory, for the largest batch; the rest is for what a step computes in between."""


def at_context(model: LanguageModel, context: int, batch: int, device: str, repeats: int) -> dict[str, Any]:
    """One point: milliseconds by the way of attention, and bytes held."""
    states = memories(model, batch, context)
    ids = torch.zeros(batch, dtype=torch.int64, device=device)
    times = {way: milliseconds(lambda: decode(model, ids, states, keep=False), device, repeats) for way in _ways(model)}
    return {"context": context, "batch": batch, "bytes": state_bytes(states), "milliseconds": times}


def as_many_as_fit(model: LanguageModel, size: Size, one: dict[str, Any], device: str) -> dict[str, Any]:
    """The same context as the point `one`, at the largest batch whose memories fit beside the model."""
    memory = size.memory or int(SHARE * torch.cuda.mem_get_info()[0])
    batch = max(1, memory // one["bytes"])
    while True:
        try:
            return at_context(model, one["context"], batch, device, max(3, size.repeats // 4))
        except torch.cuda.OutOfMemoryError:
            print(f"batch {batch} does not fit", flush=True)
        batch = batch * 9 // 10
        _release()


def prefill(model: LanguageModel, prompt: int, device: str) -> dict[str, Any]:
    """Milliseconds until the logits after a prompt are there, three times after a first that does not count."""
    ids = torch.randint(256, (1, prompt), device=device)

    def read() -> Tensor:
        return model.head(model.hidden(ids)[0][:, -1])

    read()
    return {"prompt": prompt, "milliseconds": [round(_timed(read, device), 3) for _ in range(3)]}


def milliseconds(step: Callable[[], Any], device: str, repeats: int) -> list[float]:
    """Median, lowest and highest time of a step: on a GPU of a graph's replay, on a CPU of a call."""
    step()  # compiles and tunes
    replay = _graph(step) if device == "cuda" else step
    times = [_timed(replay, device) for _ in range(repeats)]
    return [round(value, 4) for value in (statistics.median(times), min(times), max(times))]


@torch.no_grad()
def of_model(config: ModelConfig, size: Size, device: str) -> dict[str, Any]:
    """All points of one model."""
    with torch.device(device):
        model = with_buffers(config).to(torch.bfloat16 if device == "cuda" else torch.float32)
    prompts = []
    for prompt in size.prompts:
        prompts.append(prefill(model, prompt, device))
        _release()
    one, most = [], []
    for context in size.contexts:
        one.append(at_context(model, context, 1, device, size.repeats))
        _release()
        most.append(as_many_as_fit(model, size, one[-1], device))
        _release()
        print(one[-1], most[-1], flush=True)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"parameters": parameters, "prefill": prompts, "one": one, "most": most}


def measure(size: Size, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Every model's points, and where they were made: read from the folder's file, or measured and written there."""
    found = {}
    for name, config in configs(size).items():
        file = options.folder / f"{name}.json"
        if not file.exists():
            print(name, flush=True)
            start = time.perf_counter()
            points = of_model(config, size, options.device)
            seconds = round(time.perf_counter() - start, 1)
            made = machine.provenance(options.commit, options.device)
            record = {"points": points, "seconds": seconds, "made": made}
            write_atomically(file, json.dumps(record))
            _release()
        found[name] = json.loads(file.read_text(encoding="utf-8"))
    return found


def main() -> None:
    """The command line; --smoke has small models, and 16 MiB that memories may fill."""
    options = machine.arguments(WHAT, "folder", "device", "smoke").parse_args()
    options.folder = options.folder or Path(tempfile.mkdtemp())
    options.folder.mkdir(parents=True, exist_ok=True)
    machine.only_kernels()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    size, on_gpu = SMOKE if options.smoke else FULL, options.device == "cuda"
    found = measure(size, options)
    settings = {
        "dtype": "bfloat16, recurrent states float32" if on_gpu else "float32",
        "timing": "CUDA graph of one step; median, lowest, highest" if on_gpu else "CPU, one thread",
        "repeats": size.repeats,
        "models": {name: config.to_dict() for name, config in configs(size).items()},
    }
    parts = {
        "seeds": [0],
        "wall_s": round(sum(record["seconds"] for record in found.values()), 1),
        "settings": settings,
        "data": {name: record["points"] for name, record in found.items()},
    }
    made = [record["made"] for record in found.values()]
    machine.write(options.out, machine.result(SCRIPT, WHAT, made, parts))


def _ways(model: LanguageModel) -> Iterator[str]:
    """Set every way of attention that the device has, one after the other; one round for a model without any."""
    attentions = [module for module in model.modules() if isinstance(module, StaticAttention)]
    if not attentions:
        yield "no attention"
    for name, way in WAYS.items():
        if attentions and attentions[0].works(way):
            for attention in attentions:
                attention.way = way
            yield name


def _graph(step: Callable[[], Any]) -> Callable[[], None]:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def _timed(function: Callable[[], Any], device: str) -> float:
    """Milliseconds."""
    if device == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        function()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end)
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


def _release() -> None:
    """Give back what the last measurement held."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
