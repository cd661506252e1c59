"""What a model remembers between calls, growing and fixed memory alike."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ssm_kit.layers import KVCache, state_bytes


@dataclass(frozen=True)
class Cache:
    """One state per block, in order; None for blocks that remember nothing.

    Models write nothing in place: an old cache stays valid, and a text can be continued from it twice.
    """

    states: tuple[Any, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of everything held."""
        return state_bytes(self.states)

    @property
    def kv_bytes(self) -> int:
        """Bytes of keys and values: what grows with every token, until a window is full."""
        return sum(cache.k.nbytes + cache.v.nbytes for cache in _kv_caches(self.states))

    @property
    def fixed_bytes(self) -> int:
        """Bytes of everything else, the same after one token as after a million."""
        return self.nbytes - self.kv_bytes


def _kv_caches(state: Any) -> Iterator[KVCache]:
    """Every KVCache in a nesting of states."""
    if isinstance(state, KVCache):
        yield state
    elif isinstance(state, tuple):
        for part in state:
            yield from _kv_caches(part)
