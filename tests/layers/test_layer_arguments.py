"""Sizes and options that no layer can have are refused, by name."""

import math

import pytest

from ssm_kit.layers import (
    MLP,
    RGLRU,
    Attention,
    GatedDeltaNet,
    GatedRMSNorm,
    LinearAttention,
    Mamba,
    Mamba2,
    MoE,
    RMSNorm,
    SharedAttention,
)

REFUSED = [
    (lambda: Mamba(0), "d_model must be an integer >= 1; got 0"),
    (lambda: Mamba(8, d_state=2.0), "d_state must be an integer >= 1; got 2.0"),
    (lambda: Mamba(8, d_conv=True), "d_conv must be an integer >= 1; got True"),
    (lambda: Mamba(8, dt_rank="all"), "dt_rank must be \"auto\" or an integer >= 1; got 'all'"),
    (lambda: Mamba(8, dt_rank=0), "dt_rank must be an integer >= 1; got 0"),
    (lambda: Mamba(8, dt_min=0.2), "(dt_min, dt_max) must be a pair with 0 < low <= high; got (0.2, 0.1)"),
    (lambda: Mamba(8, dt_min=0.0), "(dt_min, dt_max) must be a pair with 0 < low <= high; got (0.0, 0.1)"),
    (lambda: Mamba(8, dt_init_floor=0.0), "dt_init_floor must be > 0; got 0.0"),
    (lambda: Mamba(8, bcdt_norm="rms"), "bcdt_norm must be one of None, 'weightless', 'learned'; got 'rms'"),
    (lambda: Mamba(8, num_heads=3), "d_inner = expand * d_model must be a multiple of num_heads = 3; got 16"),
    (lambda: Mamba2(8, headdim=3), "d_inner = expand * d_model must be a multiple of headdim = 3; got 16"),
    (lambda: Mamba2(8, headdim=4, ngroups=3), "the number of heads must be a multiple of ngroups = 3; got 4"),
    (lambda: Mamba2(8, nheads=-1), "nheads must be an integer >= 1; got -1"),
    (lambda: Mamba2(8, headdim=4, chunk_size=0), "chunk_size must be an integer >= 1; got 0"),
    (lambda: Mamba2(8, headdim=4, A_init_range=(0, 1)), "A_init_range must be a pair with 0 < low <= high; got (0, 1)"),
    (lambda: Mamba2(8, headdim=4, dt_limit=(2, 1)), "dt_limit must be a pair with 0 <= low <= high; got (2, 1)"),
    (lambda: Mamba2(8, headdim=4, dt_limit=(0, math.nan)), "dt_limit must be a pair with 0 <= low <= high"),
    (lambda: GatedDeltaNet(8, 2, 3), "num_v_heads must be a multiple of num_k_heads = 2; got 3"),
    (lambda: GatedDeltaNet(8, 2, 2, 0), "head_k_dim must be an integer >= 1; got 0"),
    (lambda: RGLRU(8, 10, 4), "lru_width must be a multiple of num_heads = 4; got 10"),
    (lambda: RGLRU(8, decay_range=(0.5, 1)), "decay_range must end below 1; got (0.5, 1)"),
    (lambda: LinearAttention(8, 3), "d_model must be a multiple of num_heads = 3; got 8"),
    (lambda: LinearAttention(8, 2, feature_map="exp"), "feature_map must be one of 'elu', 'hedgehog'; got 'exp'"),
    (lambda: Attention(8, 3), "d_model must be a multiple of num_heads = 3; got 8"),
    (lambda: Attention(8, 4, 3), "num_heads must be a multiple of num_kv_heads = 3; got 4"),
    (lambda: Attention(8, 4, window=0), "window must be an integer >= 1; got 0"),
    (lambda: Attention(8, 4, rope=0.0), "rope must be > 0, or None for no positions; got 0.0"),
    (
        lambda: Attention(8, 2, rope=1e4, rotary_fraction=0.75),
        "rotary_fraction must be a number in (0, 1] with",
    ),
    (lambda: Attention(8, 2, rope=1e4, rotary_fraction=1.5), "rotary_fraction must be a number in (0, 1]"),
    (lambda: SharedAttention(8, 4, 8, 0), "num_calls must be an integer >= 1; got 0"),
    (lambda: SharedAttention(8, 3, 8), "d_model must be a multiple of num_heads = 3; got 16"),
    (lambda: SharedAttention(8, 4, 8, kind="relu2"), "kind must have a gate; got 'relu2'"),
    (lambda: SharedAttention(8, 4, 8, adapter_rank=0), "adapter_rank must be an integer >= 1; got 0"),
    (lambda: MLP(8, 0), "d_ff must be an integer >= 1; got 0"),
    (lambda: MLP(8, 8, "relu"), "kind must be one of 'swiglu', 'geglu', 'geglu_tanh', 'relu2'; got 'relu'"),
    (lambda: MoE(8, 8, 4, 5), "top_k must be at most num_experts = 4; got 5"),
    (lambda: MoE(8, 8, 4, 0), "top_k must be an integer >= 1; got 0"),
    (lambda: MoE(8, 8, 4, 1, score="tanh"), "score must be one of 'softmax', 'sigmoid'; got 'tanh'"),
    (lambda: MoE(8, 8, 4, 1, kind="relu"), "kind must be one of"),
    (lambda: MoE(8, 8, 4, 1, shared_gate=True), "shared_gate must be False where shared_d_ff is None; got True"),
    (lambda: RMSNorm(0), "size must be an integer >= 1; got 0"),
    (lambda: GatedRMSNorm(8, 3), "size must be a multiple of group_size = 3; got 8"),
]


@pytest.mark.parametrize(("build", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_refused(build, message):
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 (the message is compared below)
        build()
    assert message in str(refusal.value)
