"""The layers of the book: one file per mixer, one interface, parameters named as in the public checkpoints.

    y, state = layer(x, state=None)          # x, y (B, L, d_model)
    y_t, state = layer.step(x_t, state)      # x_t, y_t (B, d_model)
    state = layer.init_state(batch_size)

A sequence may come in pieces of any lengths, or step by step: the outputs are those of the whole sequence. See
`ssm_kit.layers._state` for what holds of all states.
"""

from ssm_kit.layers._lti import S4State
from ssm_kit.layers._state import Layer, state_bytes
from ssm_kit.layers.attention import Attention, KVCache
from ssm_kit.layers.gated_deltanet import GatedDeltaNet, GatedDeltaNetState
from ssm_kit.layers.gated_s4d import GatedS4D, GatedS4DState
from ssm_kit.layers.linear_attention import LinearAttention, LinearAttentionState
from ssm_kit.layers.mamba import Mamba, MambaState, zamba_weights
from ssm_kit.layers.mamba2 import Mamba2, Mamba2State
from ssm_kit.layers.mlp import MLP
from ssm_kit.layers.moe import MoE
from ssm_kit.layers.norm import GatedRMSNorm, RMSNorm
from ssm_kit.layers.rg_lru import RGLRU, RGLRUState
from ssm_kit.layers.s4 import S4
from ssm_kit.layers.s4d import S4D
from ssm_kit.layers.shared_attention import SharedAttention

__all__ = [
    "MLP",
    "RGLRU",
    "S4",
    "S4D",
    "Attention",
    "GatedDeltaNet",
    "GatedDeltaNetState",
    "GatedRMSNorm",
    "GatedS4D",
    "GatedS4DState",
    "KVCache",
    "Layer",
    "LinearAttention",
    "LinearAttentionState",
    "Mamba",
    "Mamba2",
    "Mamba2State",
    "MambaState",
    "MoE",
    "RGLRUState",
    "RMSNorm",
    "S4State",
    "SharedAttention",
    "state_bytes",
    "zamba_weights",
]
