"""One residual block: norm, layer, sum; in Zamba, with a visit to the attention that it shares with others."""

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from torch import Tensor, nn

from ssm_kit import layers
from ssm_kit.layers import KVCache, Layer, RMSNorm, SharedAttention
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

    def forward(self, x: Tensor, state: Any, embeddings: Tensor) -> tuple[Tensor, Any]:
        """One block.

        Args:
            x: (B, L, d_model) with the state before it or None; or one step, (B, d_model).
            state: what the block remembers; None for nothing.
            embeddings: x as it entered the first block.

        Returns:
            The stream after the block in the shape and dtype of x, and the next state.
        """
        y, state = self._mix(x, state)
        return x + y, state

    def init_state(self, batch_size: int, **options: Any) -> Any:
        """What the block remembers before the first token; see `Layer.init_state`."""
        return self.mixer.init_state(batch_size, **options)

    def _mix(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        advance = self.mixer if x.ndim == 3 else self.mixer.step
        return advance(self.norm(x).to(self.norm.weight.dtype), state)


class SharedBlockState(NamedTuple):
    """What a block with shared attention remembers: the cache is its own, only the weights are shared."""

    shared: KVCache
    mixer: Any


class SharedBlock(Block):
    """x + mixer(norm(x + shared(x, embeddings))) (Zamba, arXiv 2405.16712, eq. 6).

    What the shared attention says reaches the mixer only, not the residual stream.
    """

    def __init__(self, config: ModelConfig, kind: str, shared: SharedAttention, call: int) -> None:
        super().__init__(config, kind)
        self._lender = (shared,)  # in a tuple, so that its weights are the model's and not every block's
        self.call = call

    def forward(self, x: Tensor, state: SharedBlockState | None, embeddings: Tensor) -> tuple[Tensor, Any]:
        """As `Block.forward`."""
        if state is not None and not isinstance(state, SharedBlockState):
            raise ValueError(f"state must be a SharedBlockState or None; got {type(state).__name__}")
        cache, memory = state or (None, None)
        (shared,), dtype = self._lender, self.norm.weight.dtype
        advance = shared if x.ndim == 3 else shared.step
        heard, cache = advance(x.to(dtype), cache, embeddings=embeddings.to(dtype), call=self.call)
        y, memory = self._mix(x + heard, memory)
        return x + y, SharedBlockState(cache, memory)

    def init_state(self, batch_size: int, **options: Any) -> SharedBlockState:
        """An empty cache, and the mixer's state before the first token."""
        cache = self._lender[0].init_state(batch_size, **options)
        return SharedBlockState(cache, super().init_state(batch_size, **options))


def build_blocks(config: ModelConfig) -> tuple[nn.ModuleList, nn.ModuleDict]:
    """All blocks of a model in order, and by kind the shared attention of those kinds that have one."""
    lenders = {}
    for kind in dict.fromkeys(config.pattern):
        if (settings := config.blocks[kind].get("shared")) is not None:
            settings = {"layer": "SharedAttention", **settings, "num_calls": config.pattern.count(kind)}
            lenders[kind] = cast(SharedAttention, build_layer(config.d_model, kind, settings))
    blocks = nn.ModuleList()
    for place, kind in enumerate(config.pattern):
        if kind in lenders:
            call = config.pattern[:place].count(kind)
            blocks.append(SharedBlock(config, kind, lenders[kind], call))
        else:
            blocks.append(Block(config, kind))
    return blocks, nn.ModuleDict(lenders)


def build_layer(d_model: int, kind: str, block: Mapping[str, Any]) -> Layer:
    """The layer that an entry of `ModelConfig.blocks` describes. Raises ValueError for one that does not exist."""
    arguments = {name: value for name, value in block.items() if name not in ("layer", "shared")}
    name = block["layer"]
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
