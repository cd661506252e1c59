"""The operators of the book: sequence models as functions on torch tensors, time before channels.

Every operator has a sequential definition (`backend="reference"`), a chunked form that needs no compiler and no GPU
(`backend="torch"`), kernels for NVIDIA GPUs (`backend="cuda"`, which needs the extra [gpu]; "auto" takes them where
they can serve), and a step for decoding: the same arguments without their time axis, the state as keyword `state`,
which it leaves as it is; it returns (y, next state).

The main tensors are positional, everything else is keyword-only. Half precision is computed in float32 and returned
in its own dtype; states are then float32. Gradients reach every floating argument, also through the final state.
"""

from ssm_kit.ops.causal_conv1d import causal_conv1d, causal_conv1d_step
from ssm_kit.ops.first_order_scan import first_order_scan, first_order_scan_step
from ssm_kit.ops.gated_delta import (
    delta_rule,
    delta_rule_step,
    gated_delta_rule,
    gated_delta_rule_step,
    linear_attention,
    linear_attention_step,
)
from ssm_kit.ops.selective_scan import selective_scan, selective_scan_step
from ssm_kit.ops.ssd import ssd, ssd_step

__all__ = [
    "causal_conv1d",
    "causal_conv1d_step",
    "delta_rule",
    "delta_rule_step",
    "first_order_scan",
    "first_order_scan_step",
    "gated_delta_rule",
    "gated_delta_rule_step",
    "linear_attention",
    "linear_attention_step",
    "selective_scan",
    "selective_scan_step",
    "ssd",
    "ssd_step",
]
