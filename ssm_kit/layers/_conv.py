"""The causal convolution of a layer, over a sequence or for one step."""

from torch import Tensor, nn

from ssm_kit.layers._state import over_time
from ssm_kit.ops import causal_conv1d, causal_conv1d_step


def convolve(x: Tensor, conv: nn.Conv1d, state: Tensor, activation: str | None = "silu") -> tuple[Tensor, Tensor]:
    """The convolution over x (B, L, D), or one step of it, x (B, D); state: the W - 1 inputs before, (B, W - 1, D).

    Returns y in the shape and dtype of x, and the last W - 1 inputs in the dtype of state.
    """
    run = over_time(causal_conv1d, causal_conv1d_step, x, state)
    y, after = run(x, conv.weight[:, 0], bias=conv.bias, activation=activation)
    return y, after.to(state.dtype)
