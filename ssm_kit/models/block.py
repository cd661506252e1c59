"""One residual block: norm, layer, sum."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ssm_kit import layers
from ssm_kit.layers import Layer, RMSNorm
from ssm_kit.models.config import ModelConfig


class Block(nn.Module):
    """x + mixer(norm(x)), the mixer being any layer: of tokens, of channels, or of experts.

    The sum has the dtype of x, the layer computes in that of its weights, so that a residual stream in float32 can
    run through layers in half precision.
    """

    def __init__(self, config: ModelConfig, kind: str) -> None:
        super().__init__()
        self.norm = RMSNorm(config.d_model, config.norm_eps, zero_centered=config.zero_centered_norm)
        self.mixer = build_layer(config.d_model, kind, config.blocks[kind])

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """x (B, L, d_model) with the state before it or None, or one step, x (B, d_model) with its state."""
        advance = self.mixer if x.ndim == 3 else self.mixer.step
        y, state = advance(self.norm(x).to(self.norm.weight.dtype), state)
        return x + y, state


def build_layer(d_model: int, kind: str, block: Mapping[str, Any]) -> Layer:
    """The layer that an entry of `ModelConfig.blocks` describes. Raises ValueError for one that does not exist."""
    arguments = dict(block)
    name = arguments.pop("layer")
    if name not in (known := layer_names()):
        raise ValueError(f"blocks[{kind!r}] must name one of {', '.join(known)}; got {name!r}")
    try:
        return getattr(layers, name)(d_model, **arguments)
    except (TypeError, ValueError) as error:  # an argument that the layer does not know, or does not like
        raise ValueError(f"blocks[{kind!r}] must hold arguments of {name}: {error}") from error


def layer_names() -> list[str]:
    """The layers that a block can be made of."""
    named = {name: getattr(layers, name) for name in layers.__all__}
    return [
        name for name, made in named.items() if isinstance(made, type) and issubclass(made, Layer) and made is not Layer
    ]
