"""From a card to a model small enough for a laptop's tests, by one rule for all of them."""

from typing import Any

from ssm_kit.models import ModelConfig
from ssm_kit.zoo.blocks import MLP, RGLRU, Attention, Block, GatedDelta, Mamba, Mamba2, MoE, SharedHybrid
from ssm_kit.zoo.card import Card

D_MODEL = 32
HEADS, HEAD_DIM = 4, 8
WINDOW = 8


def tiny(card: Card) -> ModelConfig:
    """A small model of the same architecture.

    What is kept: the kinds of blocks, their order, and all that is a choice rather than a size: how heads are
    grouped, positions, gates, norms, how experts are weighed, the tied head. What shrinks: the widths, to fixed small
    ones (d_model 32), and the depth, to the beginning of the pattern up to the layer in which every kind has come up,
    those that share weights twice.

    Returns:
        A config for `ssm_kit.models.LanguageModel`, with the 256 bytes as its vocabulary.

    Raises:
        ValueError: a card whose order of blocks is not known, or with a block that no layer of this package is.
    """
    pattern = card.pattern()
    if pattern is None:
        raise ValueError(f"card must have a known order of blocks for a tiny model; that of {card.id} is not published")
    if lacking := [block.missing for block in card.blocks.values() if block.missing]:
        raise ValueError(f"card must have blocks that are layers of this package; {card.id} has {', '.join(lacking)}")
    scale = {"embedding_scale": D_MODEL**0.5} if card.scaled_embeddings else {}
    return ModelConfig(
        vocab_size=256,
        d_model=D_MODEL,
        pattern=beginning(pattern, card),
        blocks={kind: small(block) for kind, block in card.blocks.items()},
        **card.model,
        **scale,
    )


def beginning(pattern: str, card: Card) -> str:
    """The shortest beginning that ends with a layer, has two mixers, and every kind once, or twice if it is shared."""
    wanted = {kind: 2 if isinstance(block, SharedHybrid) else 1 for kind, block in card.blocks.items()}
    for end in range(1, len(pattern) + 1):
        start = pattern[:end]
        whole = end == len(pattern) or card.blocks[pattern[end]].mixers  # what follows begins another layer
        mixers = sum(bool(card.blocks[kind].mixers) for kind in start)
        if whole and mixers >= 2 and all(start.count(kind) >= times for kind, times in wanted.items()):
            return start
    return pattern


def small(block: Block) -> dict[str, Any]:
    """The entry of `ModelConfig.blocks`: a layer, its small sizes, and its architecture as the card has it."""
    return _sizes(block) | dict(block.layer)


def _sizes(block: Block) -> dict[str, Any]:
    match block:
        case SharedHybrid():
            adapter = {} if block.adapter_rank is None else {"adapter_rank": HEADS}
            sizes = {"num_heads": HEADS, "d_ff": 2 * D_MODEL, **adapter}
            return small(block.recurrent) | {"shared": sizes | dict(block.attention.layer)}
        case Attention():
            return _attention(block)
        case Mamba():
            return {"layer": "Mamba", "d_state": 4}
        case Mamba2():
            sizes = {"d_state": 8, "headdim": HEAD_DIM, "ngroups": min(block.groups, 2), "chunk_size": 16}
            return {"layer": "Mamba2", **sizes}
        case GatedDelta():
            heads = {"num_k_heads": 2, "num_v_heads": 2 * block.value_heads // block.key_heads}
            return {"layer": "GatedDeltaNet", **heads, "head_k_dim": HEAD_DIM, "head_v_dim": HEAD_DIM}
        case RGLRU():
            return {"layer": "RGLRU", "num_heads": 2}
        case MLP():
            return {"layer": "MLP", "d_ff": 2 * D_MODEL}
        case MoE():
            return _experts(block)
    raise ValueError(f"block must be of a kind that has a layer; got {type(block).__name__}")


def _attention(block: Attention) -> dict[str, Any]:
    """One key head stays one, as many as query heads stay as many, and in between they are in between."""
    kv_heads = {1: 1, block.query_heads: HEADS}.get(block.kv_heads, HEADS // 2)
    window = {} if block.window is None else {"window": WINDOW}
    return {"layer": "Attention", "num_heads": HEADS, "num_kv_heads": kv_heads, "head_dim": HEAD_DIM, **window}


def _experts(block: MoE) -> dict[str, Any]:
    shared = {"shared_d_ff": D_MODEL} if block.shared else {}
    latent = {"latent": D_MODEL // 2} if block.latent else {}
    return {"layer": "MoE", "d_ff": D_MODEL, "num_experts": 4, "top_k": 2, **shared, **latent}
