"""The functions of `causal_conv1d` under their own names, layouts and argument orders, run by `ssm_kit.ops`.

Channels come before time, (B, D, L), and the weight is (D, W). Unlike the peer's kernel, every width, every number
of channels, every device and every memory layout will do.
"""

import torch
from torch import Tensor

from ssm_kit.compat._options import refuse
from ssm_kit.compat._packed import lay_end_to_end, offsets
from ssm_kit.ops import causal_conv1d
from ssm_kit.ops._check import bind_shapes


def causal_conv1d_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    seq_idx: Tensor | None = None,
    initial_states: Tensor | None = None,
    return_final_states: bool = False,
    final_states_out: Tensor | None = None,
    activation: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """A short causal convolution of each channel.

    Args:
        x: (B, D, L).
        weight: (D, W); the last column meets the present.
        bias: (D,).
        seq_idx: (B, L) integers: nothing flows between positions with different numbers.
        initial_states: (B, D, W - 1), the inputs before the first.
        activation: None, "silu" or "swish", which is the same.

    Returns:
        y (B, D, L), or (y, final states (B, D, W - 1)), the last inputs.

    Raises:
        NotImplementedError: `final_states_out`, another activation; with `seq_idx`, states of either kind.
        ValueError: shapes that do not fit, and what `ssm_kit.ops.causal_conv1d` refuses.
    """
    refuse(final_states_out=final_states_out)
    size = bind_shapes(x=(x, "B D L"), weight=(weight, "D W"), initial_states=(initial_states, "B D S"))
    steps, bounds = x.mT, None
    if seq_idx is not None:
        refuse(initial_states=initial_states, return_final_states=return_final_states)
        bounds = offsets(seq_idx, batch=size["B"], length=size["L"])
        steps = lay_end_to_end(steps)
    y, states = causal_conv1d(
        steps,
        weight,
        bias=bias,
        activation=_activation(activation),
        initial_state=None if initial_states is None else initial_states.mT,
        return_final_state=True,
        cu_seqlens=bounds,
    )
    y = y.reshape(size["B"], size["L"], size["D"]).mT
    return (y, states.mT) if return_final_states else y


def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    cache_seqlens: Tensor | None = None,
    conv_state_indices: Tensor | None = None,
) -> Tensor:
    """The next step or steps of a convolution, for decoding; the newest inputs are written into `conv_state`.

    Args:
        x: (B, D), or (B, D, L) for several steps.
        conv_state: (B, D, S) with S >= W - 1: the inputs before x, the newest last. Changed in place.
        weight: (D, W).
        bias: (D,).
        activation: None, "silu" or "swish".

    Returns:
        y in the shape of x.

    Raises:
        NotImplementedError: `cache_seqlens`, `conv_state_indices`, another activation.
        ValueError: shapes that do not fit, and what `ssm_kit.ops.causal_conv1d` refuses.
    """
    refuse(cache_seqlens=cache_seqlens, conv_state_indices=conv_state_indices)
    size = bind_shapes(x=(x, "B D | B D L"), conv_state=(conv_state, "B D S"), weight=(weight, "D W"))
    if size["S"] < size["W"] - 1:
        raise ValueError(f"conv_state must hold at least W - 1 = {size['W'] - 1} inputs; got {size['S']}")
    history = torch.cat([conv_state, x.reshape(size["B"], size["D"], -1)], dim=-1)
    y, _ = causal_conv1d(history.mT, weight, bias=bias, activation=_activation(activation), return_final_state=True)
    conv_state.copy_(history[..., -size["S"] :])
    return y.mT[..., size["S"] :].reshape(x.shape).to(x.dtype)


def _activation(name: str | None) -> str | None:
    if name not in (None, "silu", "swish"):
        raise NotImplementedError(f"activation must be None, 'silu' or 'swish'; got {name!r}")
    return name and "silu"
