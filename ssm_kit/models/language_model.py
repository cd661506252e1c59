"""The stack: embeddings, a row of residual blocks, a norm, a head."""

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssm_kit.layers import RMSNorm
from ssm_kit.models.block import Block, build_blocks
from ssm_kit.models.cache import Cache
from ssm_kit.models.config import ModelConfig
from ssm_kit.ops._check import bind_shapes

EMBEDDING_STD = 0.02  # of GPT-2 and of Mamba's released code
OUTPUT_PROJECTIONS = {"out_proj", "o_proj", "down_proj", "linear_out", "output_linear"}


class LanguageModel(nn.Module):
    """Next-token logits for token ids, over a sequence or step by step.

        logits, cache = model(ids)                # ids (B, L) -> logits (B, L, vocab_size)
        logits, cache = model(more, cache)        # goes on where the cache stands
        logits, cache = model.step(ids, cache)    # ids (B,) -> logits (B, vocab_size)

    Pieces of any lengths, or steps, give the logits of the whole sequence. Parameters are named as in the public
    Mamba checkpoints, without their "backbone.": embeddings, layers.N.norm, layers.N.mixer, norm_f, lm_head. Attention
    that the blocks of a kind share is shared.KIND.

    Initial weights: embeddings and head from N(0, 0.02²), layers by their papers, and every projection that writes
    into the residual stream divided by √blocks, so that the stream does not grow with depth (GPT-2, §2.3).

    Raises ValueError for a config whose blocks name no layer, or arguments that the layer refuses.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = nn.Embedding(config.vocab_size, config.d_model)
        self.layers, self.shared = build_blocks(config)
        self.norm_f = RMSNorm(config.d_model, config.norm_eps, zero_centered=config.zero_centered_norm)
        self.lm_head = None if config.tied_head else nn.Linear(config.d_model, config.vocab_size, bias=False)
        self._initialise()

    def forward(self, ids: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """Logits after every token.

        Args:
            ids: (B, L) integers below vocab_size, L >= 1.
            cache: what the model remembers of the tokens before; None for nothing.

        Returns:
            logits (B, L, vocab_size) in the weights' dtype, and the cache after the last token.

        Raises:
            ValueError: ids of another shape or dtype or out of range, a cache of another model or batch size.
        """
        x, cache = self.hidden(ids, cache)
        return self.head(x), cache

    def step(self, ids: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """Logits (B, vocab_size) after one more token, ids (B,), and the next cache. Errors as `forward`."""
        self._check(ids, "B", cache)
        x, cache = self._run(ids, cache)
        return self.head(x), cache

    def hidden(self, ids: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """What the head reads, (B, L, d_model), and the cache: `forward` without the work of the head."""
        self._check(ids, "B L", cache)
        return self._run(ids, cache)

    def head(self, x: Tensor) -> Tensor:
        """Logits (..., vocab_size) of hidden vectors (..., d_model)."""
        weight = self.embeddings.weight if self.lm_head is None else self.lm_head.weight
        logits = F.linear(x, weight)
        cap = self.config.logit_softcap
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def init_cache(
        self, batch_size: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Cache:
        """The memory before the first token; see `Layer.init_state` for the arguments."""
        blocks = cast(Iterable[Block], self.layers)
        return Cache(tuple(block.init_state(batch_size, device=device, dtype=dtype) for block in blocks))

    def _run(self, ids: Tensor, cache: Cache | None) -> tuple[Tensor, Cache]:
        embeddings = self.embeddings(ids) * self.config.embedding_scale
        if self.config.residual_in_fp32:
            embeddings = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
        x = embeddings
        states = len(self.layers) * (None,) if cache is None else cache.states
        after = []
        for block, state in zip(self.layers, states, strict=True):
            x, state = block(x, state, embeddings)
            after.append(state)
        return self.norm_f(x).to(self.norm_f.weight.dtype), Cache(tuple(after))

    def _check(self, ids: Tensor, axes: str, cache: Cache | None) -> None:
        if not isinstance(ids, Tensor) or ids.dtype not in (torch.int64, torch.int32):
            raise ValueError(f"ids must be a tensor of int64 or int32; got {getattr(ids, 'dtype', type(ids).__name__)}")
        bind_shapes(ids=(ids, axes))
        if ids.device.type == "cpu":  # elsewhere the look would wait for the device; there embedding asserts
            low, high = ids.min().item(), ids.max().item()
            if low < 0 or high >= self.config.vocab_size:
                raise ValueError(f"ids must be from 0 to {self.config.vocab_size - 1}; got {low} to {high}")
        if cache is None:
            return
        if not isinstance(cache, Cache):
            raise ValueError(f"cache must be a Cache or None; got {type(cache).__name__}")
        if len(cache.states) != len(self.layers):
            raise ValueError(f"cache must hold {len(self.layers)} states, one per block; got {len(cache.states)}")

    @torch.no_grad()
    def _initialise(self) -> None:
        for table in (self.embeddings, self.lm_head):
            if table is not None:
                nn.init.normal_(table.weight, std=EMBEDDING_STD)
        for name, parameter in self.layers.named_parameters():
            if OUTPUT_PROJECTIONS.intersection(name.split(".")) and parameter.ndim > 1:
                parameter.div_(len(self.layers) ** 0.5)
