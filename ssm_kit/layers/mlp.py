"""The feed-forward layer of all models here: it mixes channels, never time."""

import functools
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ssm_kit.layers._check import require_positive
from ssm_kit.layers._state import Layer
from ssm_kit.ops._check import require_choice


def squared_relu(x: Tensor) -> Tensor:
    """max(x, 0)² (arXiv 2109.08668)."""
    return F.relu(x).square()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "swiglu": F.silu,
    "geglu": F.gelu,
    "geglu_tanh": functools.partial(F.gelu, approximate="tanh"),
    "relu2": squared_relu,
}
"""What each kind of MLP applies; all but "relu2" have a gate (arXiv 2002.05202)."""


class MLP(Layer):
    """down_proj(f(gate_proj(x)) · up_proj(x)), or without a gate down_proj(f(up_proj(x))).

    Args:
        d_model: width of input and output.
        d_ff: width inside.
        kind: "swiglu" (Jamba, Qwen3-Next), "geglu" with the exact GELU (Zamba), "geglu_tanh" with its approximation
            by tanh (Griffin, RecurrentGemma), "relu2" without a gate (Nemotron).
        bias: of all projections.

    It remembers nothing: its state is None.

    Raises:
        ValueError: sizes below 1, an unknown kind.
    """

    def __init__(self, d_model: int, d_ff: int, kind: str = "swiglu", *, bias: bool = False) -> None:
        super().__init__()
        require_positive(d_model=d_model, d_ff=d_ff)
        require_choice("kind", kind, tuple(ACTIVATIONS))
        self.d_model, self.kind = d_model, kind
        if kind != "relu2":
            self.gate_proj = nn.Linear(d_model, d_ff, bias=bias)
        self.up_proj = nn.Linear(d_model, d_ff, bias=bias)
        self.down_proj = nn.Linear(d_ff, d_model, bias=bias)

    def _advance(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        if self.kind == "relu2":
            return self.down_proj(squared_relu(self.up_proj(x))), state
        return self.gated(self.gate_proj(x), self.up_proj(x)), state

    def gated(self, gate: Tensor, up: Tensor) -> Tensor:
        """down_proj(f(gate) · up), both (..., d_ff), of a kind with a gate."""
        return self.down_proj(ACTIVATIONS[self.kind](gate) * up)
