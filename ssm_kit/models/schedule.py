"""Where attention sits among the mixers of a hybrid."""

from math import floor

PLACEMENTS = ("spread", "first", "middle", "last", "periodic")


def schedule(
    n_layers: int, attention_fraction: float, placement: str = "spread", *, mixer: str = "M", attention: str = "*"
) -> str:
    """A row of `n_layers` mixers of which the given fraction is attention.

    Of n layers, k = attention_fraction · n, rounded half up, are attention:
    - "spread": in the middle of each of k equal stretches, layer ⌊(i + ½) n / k⌋, as far apart as can be.
      Jamba v0.1 (32 layers, 1/8) is this: 4, 12, 20, 28.
    - "periodic": at the end of every period of ⌊n / k⌋ layers; what remains has none. Qwen3-Next (48 layers, 1/4)
      and RecurrentGemma-2B (26 layers, 8/26) are this.
    - "first", "middle", "last": side by side.

    Args:
        n_layers: number of mixers, at least 1.
        attention_fraction: from 0 to 1; among the mixers, blocks of MLP or experts are not counted.
        placement: one of the five names.
        mixer, attention: what stands for the two kinds, letters of `ModelConfig.blocks`.

    Returns:
        A string of n_layers letters, "MMMM*MMM" for (8, 1/8). To put an MLP after each mixer:
        "".join(letter + "-" for letter in schedule(...)).

    Raises:
        ValueError: an argument out of its range, or a name that is not one letter.
    """
    _check(n_layers, attention_fraction, placement, mixer, attention)
    count = floor(attention_fraction * n_layers + 0.5)
    chosen = set(_positions(n_layers, count, placement)) if count else set()
    return "".join(attention if layer in chosen else mixer for layer in range(n_layers))


def _positions(n: int, k: int, placement: str) -> list[int]:
    if placement == "spread":
        return [(2 * i + 1) * n // (2 * k) for i in range(k)]
    if placement == "periodic":
        return [(i + 1) * (n // k) - 1 for i in range(k)]
    start = {"first": 0, "middle": (n - k) // 2, "last": n - k}[placement]
    return list(range(start, start + k))


def _check(n_layers: int, attention_fraction: float, placement: str, mixer: str, attention: str) -> None:
    if not isinstance(n_layers, int) or isinstance(n_layers, bool) or n_layers < 1:
        raise ValueError(f"n_layers must be a whole number >= 1; got {n_layers!r}")
    if not isinstance(attention_fraction, int | float) or not 0 <= attention_fraction <= 1:
        raise ValueError(f"attention_fraction must be between 0 and 1; got {attention_fraction!r}")
    if placement not in PLACEMENTS:
        raise ValueError(f"placement must be one of {', '.join(map(repr, PLACEMENTS))}; got {placement!r}")
    for name, letter in (("mixer", mixer), ("attention", attention)):
        if not isinstance(letter, str) or len(letter) != 1:
            raise ValueError(f"{name} must be one letter; got {letter!r}")
    if mixer == attention:
        raise ValueError(f"attention must differ from mixer; both are {mixer!r}")
