"""The zoo: the public models that this book speaks of, as data with sources.

    zoo.get("jamba-v0.1").attention_fraction(of="mixers")     # 0.125
    zoo.get("jamba-v0.1").kv_bytes_per_token()                # 16384, in bfloat16
    zoo.get("jamba-v0.1").tiny()                              # a small model of the same architecture
    for id in zoo.ids(): ...

Every size was read in a primary source: a paper, the makers' own code, card or config, or the class of transformers
that is named after the checkpoint. What only third parties state is left out.
"""

from ssm_kit.zoo.card import Card, Claim
from ssm_kit.zoo.cards import CARDS

__all__ = ["Card", "Claim", "get", "ids"]


def ids() -> list[str]:
    """The ids of all models, family by family."""
    return list(CARDS)


def get(id: str) -> Card:
    """The model of that id, the lower-case name of its card. Raises ValueError for one that is not here."""
    if id not in CARDS:
        raise ValueError(f"id must be one of {', '.join(CARDS)}; got {id!r}")
    return CARDS[id]
