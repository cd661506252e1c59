"""The models whose decoding is measured: six of one width, and one step of theirs with what they remember."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from experiments.static_attention import StaticAttention
from ssm_kit.models import LanguageModel, ModelConfig, schedule

ROPE = 10000.0


@dataclass(frozen=True)
class Size:
    """The models and how they are measured."""

    d_model: int
    layers: int
    head_dim: int
    d_state: int
    d_ff: int
    contexts: tuple[int, ...]
    prompts: tuple[int, ...]
    repeats: int
    memory: int | None
    """Bytes that caches may fill; None for what the GPU has."""


FULL = Size(
    d_model=2048,
    layers=24,
    head_dim=128,
    d_state=128,
    d_ff=5504,
    contexts=tuple(2**k for k in (10, 12, 14, 16, 17, 18)),
    prompts=tuple(2**k for k in (10, 12, 14, 16, 17)),
    repeats=20,
    memory=None,
)
SMOKE = Size(
    d_model=64,
    layers=4,
    head_dim=16,
    d_state=16,
    d_ff=128,
    contexts=(64, 8192),
    prompts=(64, 256),
    repeats=3,
    memory=2**24,
)


def configs(size: Size) -> dict[str, ModelConfig]:
    """The models, by name."""
    d, state, heads = size.d_model, size.d_state, size.d_model // size.head_dim
    mha = {"layer": "Attention", "num_heads": heads, "rope": ROPE}
    gqa = mha | {"num_kv_heads": max(1, heads // 4)}
    mamba2 = {"layer": "Mamba2", "d_state": state, "headdim": min(64, size.head_dim)}
    delta = {"num_k_heads": d // state, "num_v_heads": 2 * d // state, "head_k_dim": state, "head_v_dim": state}
    kinds: dict[str, dict[str, Any]] = {
        "attention, MHA": {"M": mha},
        "attention, GQA": {"M": gqa},
        "Mamba": {"M": {"layer": "Mamba"}},
        "Mamba-2": {"M": mamba2},
        "Gated DeltaNet": {"M": {"layer": "GatedDeltaNet", **delta}},
        "hybrid": {"M": mamba2, "*": gqa},
    }
    found = {}
    for name, blocks in kinds.items():
        row = schedule(size.layers, 1 / 8 if "*" in blocks else 0)
        pattern = "".join(letter + "-" for letter in row)
        found[name] = ModelConfig(256, d, pattern, {**blocks, "-": {"layer": "MLP", "d_ff": size.d_ff}})
    return found


def decode(model: LanguageModel, ids: Tensor, states: list[Any], keep: bool = True) -> Tensor:
    """Logits (B, 256) after one more token, ids (B,); with `keep`, `states` then holds the states after it."""
    x = embeddings = model.embeddings(ids).float()
    for index, block in enumerate(model.layers):
        x, after = block(x, states[index], embeddings)
        if keep:
            states[index] = after
        del after  # else it would be held while the next layer makes its own
    return model.head(model.norm_f(x).to(model.norm_f.weight.dtype))


def memories(model: LanguageModel, batch: int, context: int) -> list[Any]:
    """What every layer remembers when the next token is number `context`: random numbers of the right size."""
    states: list[Any] = []
    for block in model.layers:
        if isinstance(block.mixer, StaticAttention):
            states.append(block.mixer.buffer(batch, context, context - 1))
        else:
            state = block.init_state(batch)
            states.append(state and type(state)(*(tensor.normal_() for tensor in state)))
    return states
