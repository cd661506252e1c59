"""Attention that decodes from a cache of fixed size, written in place, as serving does.

`ssm_kit.layers.Attention` grows its cache by joining tensors: right to read and to differentiate, but every token then
copies the whole past. Here a token writes its key and value into a buffer made once, so that a step costs what
attention costs: reading the cache.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ssm_kit.layers import Attention
from ssm_kit.layers.attention import rotate
from ssm_kit.models import LanguageModel, ModelConfig

SPLITS = 64
"""One query leaves most of a GPU idle unless the past is cut into pieces that are read at the same time."""


class Buffer(NamedTuple):
    """Keys and values of at most `capacity` tokens, of which the first `length` are filled."""

    k: Tensor  # (B, KV heads, capacity, head_dim), rotated
    v: Tensor  # (B, KV heads, capacity, head_dim)
    length: int


def flash(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """torch's FlashAttention: q (B, H, 1, head_dim), k and v (B, KV heads, T, head_dim)."""
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=q.shape[1] != k.shape[1])


def cudnn(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """cuDNN's attention, as `flash`."""
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=q.shape[1] != k.shape[1])


def split(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Plain matrix products, the past in up to SPLITS pieces (the idea of "flash decoding"), as `flash`."""
    B, H, _, P = q.shape
    heads, length = k.shape[1:3]
    pieces = next(n for n in range(SPLITS, 0, -1) if length % n == 0)
    k, v = (past.unflatten(2, (pieces, -1)) for past in (k, v))  # (B, KV heads, S, T/S, P)
    q = q.reshape(B, heads, 1, H // heads, P)
    scores = (q @ k.mT).float() * P**-0.5  # (B, KV heads, S, H / KV heads, T/S)
    top = scores.amax((2, 4), keepdim=True)
    weights = torch.exp(scores - top)
    y = (weights.to(v.dtype) @ v).float().sum(2) / weights.sum((2, 4))[..., None]  # (B, KV heads, H / KV heads, P)
    return y.to(q.dtype).reshape(B, H, 1, P)


Way = Callable[[Tensor, Tensor, Tensor], Tensor]
WAYS: dict[str, Way] = {"flash": flash, "cudnn": cudnn, "split": split}
"""None is the fastest everywhere: the measurement tries all, and the fastest counts."""


class StaticAttention(Attention):
    """`Attention` whose steps go on in a `Buffer`; the arguments are the same, but for a window or an output gate."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.way: Way = split

    def buffer(self, batch_size: int, capacity: int, length: int = 0) -> Buffer:
        """Room for `capacity` tokens, full of random numbers, of which `length` count as the past."""
        shape = (batch_size, self.num_kv_heads, capacity, self.head_dim)
        k, v = (self.k_proj.weight.new_empty(shape).normal_() for _ in range(2))
        return Buffer(k, v, length)

    def step(self, x: Tensor, state: Buffer) -> tuple[Tensor, Buffer]:
        """One token, x (B, d_model): it is written to place `length` and attends to all up to itself."""
        q, k, v, _ = self._project(x[:, None])
        if self.rope is not None:
            position = torch.full((len(x), 1), state.length, device=x.device)
            q, k = (rotate(heads, position, self.rope, self.rotary_dim) for heads in (q, k))
        end = state.length + 1
        state.k[:, :, state.length : end], state.v[:, :, state.length : end] = k, v
        y = self.way(q, state.k[:, :, :end], state.v[:, :, :end])  # (B, H, 1, head_dim)
        return self.o_proj(y.flatten(1)), state._replace(length=end)

    def works(self, way: Way) -> bool:
        """Whether a way serves these heads on this device."""
        q = self.k_proj.weight.new_zeros(1, self.num_heads, 1, self.head_dim)
        k = q.new_zeros(1, self.num_kv_heads, 64, self.head_dim)
        try:
            way(q, k, k)
        except RuntimeError:  # torch has no kernel of this kind for them
            return False
        return True


def with_buffers(config: ModelConfig) -> LanguageModel:
    """The model of a config, its attention decoding in buffers; parameters are named as ever."""
    model = LanguageModel(config)
    for block, kind in zip(model.layers, config.pattern, strict=True):
        arguments = dict(config.blocks[kind])
        if arguments.pop("layer") == "Attention":
            block.mixer = StaticAttention(config.d_model, **arguments)
    return model
