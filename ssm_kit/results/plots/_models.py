"""One look for each kind of model, the same in all plots; attention and the state as in the live figures."""

import re
from typing import Any

from ssm_kit import colours

LOOKS = {
    "attention": (colours.ATTENTION, "-"),
    "attention, MHA": (colours.ATTENTION, "-"),
    "RoPE attention": (colours.ATTENTION, "-"),
    "NoPE attention": (colours.ATTENTION, "--"),
    "RoPE + NoPE attention": (colours.INPUT, "--"),  # seen where it runs along RoPE attention
    "linear attention": (colours.ATTENTION, ":"),
    "Hedgehog": (colours.ATTENTION, "-."),
    "sliding window": (colours.INPUT, "-"),
    "attention, GQA": (colours.INPUT, "-"),
    "S4D": (colours.EULER, "-"),
    "gated S4D": (colours.EULER, "--"),
    "Mamba": (colours.BILINEAR, "-"),
    "RG-LRU": (colours.BILINEAR, "--"),
    "Mamba-2": (colours.STATE, "-"),
    "Gated DeltaNet": (colours.MAMBA, "-"),
    "delta rule": (colours.MAMBA, "--"),
    "hybrid": (colours.QUIET, "-"),
    "Mamba-2 + attention": (colours.QUIET, "-"),
}


def look(label: str) -> dict[str, Any]:
    """Colour and line style of a model, whether or not a layer with a window goes first; nothing for another label."""
    known = LOOKS.get(re.sub(r"^window \d+ \+ ", "", label))
    return dict(zip(("color", "linestyle"), known, strict=True)) if known else {}
