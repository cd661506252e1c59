"""Generation at growing context: time of one step and bytes of the cache, with no attention, some, nothing else.

    python -m benchmarks.generation [--device cuda] [--batch 1] [--threads 2]

Three stacks of eight mixers, d_model 512, float32, no MLPs and a vocabulary of 256, so that the mixers are what is
timed. The time is that of the fastest of several steps, contexts taken in turns. A cache at some context is made up of
random numbers: how long a step takes does not depend on them, and reading 32k tokens first would take most of the time.
"""

import argparse
import time
from typing import Any

import torch

from ssm_kit import models
from ssm_kit.layers import KVCache

CONTEXTS = (1024, 2048, 4096, 8192, 16384, 32768)
MIXERS, REPEATS = 8, 20
BLOCKS = {
    "M": {"layer": "Mamba2", "d_state": 128, "headdim": 64},
    "*": {"layer": "Attention", "num_heads": 8, "num_kv_heads": 2, "rope": 10000.0},
}
STACKS = {
    "Mamba-2": models.schedule(MIXERS, 0),
    "hybrid, 1/8 attention": models.schedule(MIXERS, 1 / 8),
    "attention": models.schedule(MIXERS, 1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    machine = torch.cuda.get_device_name() if options.device == "cuda" else f"{options.threads} CPU threads"
    print(f"torch {torch.__version__}, {machine}, batch {options.batch}, float32")
    print(f"{'':<24}" + "".join(f"{context:>10}" for context in CONTEXTS))
    for name, pattern in STACKS.items():
        seconds, sizes = measure(pattern, CONTEXTS, options.batch, options.device)
        print(f"{name:<21} ms" + "".join(f"{1e3 * second:>10.2f}" for second in seconds))
        print(f"{'':<21} MB" + "".join(f"{size / 1e6:>10.2f}" for size in sizes), flush=True)


@torch.no_grad()
def measure(
    pattern: str, contexts: tuple[int, ...], batch: int, device: str, repeats: int = REPEATS
) -> tuple[list[float], list[int]]:
    """Seconds of one step, and bytes of the cache, at each context."""
    torch.manual_seed(0)
    model = models.LanguageModel(models.ModelConfig(256, 512, pattern, BLOCKS)).to(device)
    caches = [cache_at(model, context, batch) for context in contexts]
    ids = torch.zeros(batch, dtype=torch.int64, device=device)
    model.step(ids, caches[0])  # to warm up
    seconds = [float("inf")] * len(contexts)
    for _ in range(repeats):
        for index, cache in enumerate(caches):
            start = _now(device)
            model.step(ids, cache)
            seconds[index] = min(seconds[index], _now(device) - start)
    return seconds, [cache.nbytes for cache in caches]


def cache_at(model: models.LanguageModel, context: int, batch: int) -> models.Cache:
    """A cache as after `context` tokens."""
    return models.Cache(tuple(_filled(state, context) for state in model.init_cache(batch).states))


def _filled(state: Any, context: int) -> Any:
    if state is None:  # of an MLP
        return None
    if not isinstance(state, KVCache):
        return type(state)(*(torch.randn_like(tensor) for tensor in state))
    k, v = (torch.randn(*heads.shape[:2], context, heads.shape[3], device=heads.device) for heads in state[:2])
    return KVCache(k, v, torch.full_like(state.position, context))


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
