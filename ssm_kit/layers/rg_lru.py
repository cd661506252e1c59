"""The recurrent block of Griffin: a short convolution and a linear recurrence with one gated number per channel."""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssm_kit.layers import _init
from ssm_kit.layers._check import require_positive, require_range
from ssm_kit.layers._conv import convolve
from ssm_kit.layers._state import Layer, wide
from ssm_kit.ops import first_order_scan, first_order_scan_step
from ssm_kit.ops._check import require_multiple

SHARPNESS = 8.0
"""The constant c of the recurrence gate."""

MAX_SQRT_GRADIENT = 1000.0
"""The slope of the square root is held below this: at a decay of 1 it would be infinite."""


class RGLRUState(NamedTuple):
    """What the recurrent block remembers, the same amount after one token as after a million."""

    conv: Tensor  # (B, d_conv - 1, lru_width) the last inputs of the convolution
    recurrent: Tensor  # (B, lru_width)
    position: Tensor  # (B,) int64: the tokens seen, for the first is taken in at full strength


class RGLRU(Layer):
    """Griffin's recurrent block (arXiv 2402.19427, §2.3) around its RG-LRU (§2.4).

    linear_out(GeLU(linear_y(u)) · RG-LRU(conv(linear_x(u)))), the convolution without activation, and

    r_t = σ(W_a x_t + b_a);  i_t = σ(W_x x_t + b_x);  a_t = a^(8 r_t);  h_t = a_t h_{t-1} + sqrt(1 - a_t²) i_t x_t,

    with a in (0, 1) learned for every channel; the root is left out for the first token. The matrices W are block
    diagonal. Parameters have the names and shapes of transformers' RecurrentGemma, so `load_state_dict` takes those of
    its recurrent block.

    The paper draws a^8 uniformly from [0.9, 0.999], as is done here; the released code draws a (and that uniformly in
    its square), hence forgets about eight times faster at first.

    Args:
        d_model: width of input and output.
        lru_width: channels inside; None for d_model.
        num_heads: blocks on the diagonal of W.
        d_conv: taps of the convolution.
        decay_range: range of the initial a^8.

    Raises:
        ValueError: sizes below 1 or that do not divide, a range that is not inside (0, 1).
    """

    def __init__(
        self,
        d_model: int,
        lru_width: int | None = None,
        num_heads: int = 1,
        d_conv: int = 4,
        *,
        decay_range: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        super().__init__()
        require_positive(d_model=d_model, lru_width=lru_width, num_heads=num_heads, d_conv=d_conv)
        width = lru_width or d_model
        require_multiple("lru_width", width, "num_heads", num_heads)
        self.d_model, self.lru_width, self.d_conv = d_model, width, d_conv
        self.linear_y = _lecun(nn.Linear(d_model, width))
        self.linear_x = _lecun(nn.Linear(d_model, width))
        self.conv_1d = _init.short_conv(width, d_conv, bias=True)
        nn.init.normal_(self.conv_1d.weight, std=0.1 * d_conv**-0.5)  # as in the released code
        nn.init.zeros_(self.conv_1d.bias)  # type: ignore[arg-type]
        self.rg_lru = _Recurrence(width, num_heads, decay_range)
        self.linear_out = _lecun(nn.Linear(width, d_model))

    def init_state(
        self, batch_size: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> RGLRUState:
        """Zeros; see `Layer.init_state`."""
        super().init_state(batch_size)
        weight = self.linear_x.weight
        return RGLRUState(
            conv=weight.new_zeros(batch_size, self.d_conv - 1, self.lru_width, device=device, dtype=dtype),
            recurrent=weight.new_zeros(batch_size, self.lru_width, device=device, dtype=dtype or wide(weight.dtype)),
            position=torch.zeros(batch_size, dtype=torch.int64, device=device or weight.device),
        )

    def _advance(self, x: Tensor, state: RGLRUState) -> tuple[Tensor, RGLRUState]:
        gate = F.gelu(self.linear_y(x), approximate="tanh")
        inputs, conv = convolve(self.linear_x(x), self.conv_1d, state.conv, activation=None)
        steps = x.shape[1] if x.ndim == 3 else 1
        position = state.position[:, None] + torch.arange(steps, device=x.device)  # (B, L)
        first = (position if x.ndim == 3 else position[:, 0])[..., None] == 0
        a, b = self.rg_lru(inputs, first)  # (..., lru_width)
        if x.ndim == 3:
            h, recurrent = first_order_scan(a, b, initial_state=state.recurrent, return_final_state=True)
        else:
            h = recurrent = first_order_scan_step(a, b, state=state.recurrent)
        y = self.linear_out(h.to(gate.dtype) * gate)
        return y, RGLRUState(conv, recurrent.to(state.recurrent.dtype), state.position + steps)


class _Recurrence(nn.Module):
    """The gates of the RG-LRU: from its inputs to the decays a_t and the terms b_t of h_t = a_t h_{t-1} + b_t."""

    def __init__(self, width: int, num_heads: int, decay_range: tuple[float, float]) -> None:
        super().__init__()
        low, high = decay_range
        require_range("decay_range", low, high)
        if not high < 1:
            raise ValueError(f"decay_range must end below 1; got {decay_range}")
        block = width // num_heads
        slow = torch.empty(width).uniform_(low, high)  # a^8
        self.recurrent_param = _init.spared(_init.inverse_softplus(-slow.log() / SHARPNESS))
        self.input_gate_weight = nn.Parameter(torch.randn(num_heads, block, block) * block**-0.5)
        self.input_gate_bias = nn.Parameter(torch.zeros(num_heads, block))
        self.recurrent_gate_weight = nn.Parameter(torch.randn(num_heads, block, block) * block**-0.5)
        self.recurrent_gate_bias = nn.Parameter(torch.zeros(num_heads, block))

    def forward(self, x: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        """a and b (..., lru_width), at least float32, from x (..., lru_width); `first` marks first tokens, (..., 1)."""
        dtype = wide(x.dtype)
        heads = x.unflatten(-1, self.input_gate_bias.shape)  # (..., heads, block)
        log_rate = F.softplus(self.recurrent_param.to(dtype)) * SHARPNESS
        log_a = -log_rate * _gate(heads, self.recurrent_gate_weight, self.recurrent_gate_bias).to(dtype)
        strength = BoundedSqrt.apply(-torch.expm1(2 * log_a)).masked_fill(first, 1.0)
        gated = x * _gate(heads, self.input_gate_weight, self.input_gate_bias)
        return torch.exp(log_a), gated.to(dtype) * strength


class BoundedSqrt(torch.autograd.Function):
    """The square root of x >= 0 with a gradient of at most MAX_SQRT_GRADIENT, as in Griffin's code."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sqrt()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grads[0] / (2 * x.clamp(min=(0.5 / MAX_SQRT_GRADIENT) ** 2).sqrt())


def _gate(heads: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """σ(x W + b), block by block: (..., heads, block) to (..., heads · block)."""
    return torch.sigmoid(torch.einsum("...hi,hij->...hj", heads, weight) + bias).flatten(-2)


def _lecun(linear: nn.Linear) -> nn.Linear:
    """Weights of variance 1 / inputs (LeCun's initialisation), biases of 0."""
    nn.init.normal_(linear.weight, std=1 / math.sqrt(linear.in_features))
    nn.init.zeros_(linear.bias)
    return linear
