"""Time a training step of transformers' models on a CPU: on their own loops, and on our operators.

    python -m benchmarks.compat [mamba mamba2 qwen3_next ...]

Two layers of width 256, batch 4, 512 tokens, float32. Each side runs in a process of its own, because a modelling
module keeps what it found when it was imported. The time is that of one step (forward, backward) after one that warms
up, in seconds of the one thread that it may use, which other work on the machine hardly changes.
"""

import os
import subprocess
import sys
import time

import torch

BATCH, LENGTH = 4, 512
SIZES = {"vocab_size": 1024, "hidden_size": 256, "num_hidden_layers": 2, "pad_token_id": 0}
EXPERTS = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 256}

ARCHITECTURES = {
    "mamba": SIZES | {"state_size": 16},
    "mamba2": SIZES | {"state_size": 64, "num_heads": 8, "head_dim": 64},
    "qwen3_next": SIZES
    | EXPERTS
    | {"layer_types": ["linear_attention"] * 2, "shared_expert_intermediate_size": 256, "num_attention_heads": 4}
    | {"num_key_value_heads": 2, "linear_num_key_heads": 4, "linear_num_value_heads": 4}
    | {"linear_key_head_dim": 64, "linear_value_head_dim": 64},
}


def training_step(architecture: str) -> float:
    """CPU seconds for loss and gradients."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **ARCHITECTURES[architecture])).train()
    ids = torch.randint(1, SIZES["vocab_size"], (BATCH, LENGTH))

    for _ in range(2):
        start = time.process_time()
        model.zero_grad()
        model(ids, labels=ids, use_cache=False).loss.backward()
    return time.process_time() - start


def measure(architecture: str, side: str) -> float:
    """`training_step` in a fresh process, "ours" or "theirs"."""
    environment = os.environ | {"USE_HUB_KERNELS": "0", "TRANSFORMERS_VERBOSITY": "error"}
    command = [sys.executable, "-m", "benchmarks.compat", "--side", side, architecture]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def main(architectures: list[str]) -> None:
    """Print a table, one line for each architecture."""
    print(f"{'training step':14s}{'transformers':>14s}{'ssm_kit':>12s}{'times faster':>14s}")
    for architecture in architectures:
        theirs, ours = (measure(architecture, side) for side in ("theirs", "ours"))
        print(f"{architecture:14s}{theirs:12.2f} s{ours:10.3f} s{theirs / ours:14.1f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--side"]:
        if sys.argv[2] == "ours":
            import ssm_kit.compat

            ssm_kit.compat.install()
        print(training_step(sys.argv[3]))
    else:
        main(sys.argv[1:] or list(ARCHITECTURES))
