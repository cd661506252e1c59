"""transformers' mixers: their weights load by name, and then our layers give their numbers in float32."""

import os

os.environ.setdefault("USE_HUB_KERNELS", "0")  # nothing is fetched
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import pytest
import torch
import transformers
from layer_cases import stepwise
from transformers.models.falcon_mamba.modeling_falcon_mamba import FalconMambaMixer
from transformers.models.jamba.modeling_jamba import JambaAttention, JambaMambaMixer, JambaMLP, JambaSparseMoeBlock
from transformers.models.mamba.modeling_mamba import MambaMixer
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer
from transformers.models.nemotron_h import modeling_nemotron_h as nemotron_h
from transformers.models.qwen3_next import modeling_qwen3_next as qwen3_next
from transformers.models.recurrent_gemma import modeling_recurrent_gemma as recurrent_gemma
from transformers.models.zamba.modeling_zamba import ZambaAttentionDecoderLayer, ZambaMambaMixer
from transformers.models.zamba2 import modeling_zamba2 as zamba2

from ssm_kit.layers import MLP, RGLRU, Attention, GatedDeltaNet, Mamba, Mamba2, MoE, SharedAttention, zamba_weights

D_MODEL, BATCH, LENGTH = 32, 2, 21
SIZES = {"hidden_size": D_MODEL, "num_hidden_layers": 1, "attn_implementation": "eager"}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48}
POSITIONS = torch.arange(LENGTH)[None]


def inputs(seed=1):
    return torch.randn(BATCH, LENGTH, D_MODEL, generator=torch.Generator().manual_seed(seed))


def mask(window=LENGTH):
    """What transformers' eager attention adds to its scores."""
    distance = POSITIONS.mT - POSITIONS
    allowed = (distance >= 0) & (distance < window)
    return torch.zeros(1, 1, LENGTH, LENGTH).masked_fill(~allowed, -torch.inf)


def stir(module):
    """Weights in which every term counts: no gate, bias or norm stays at a neutral value."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in [*module.named_parameters(), *module.named_buffers()]:
            noise = torch.randn(weight.shape, generator=generator)
            if name.endswith("A_log"):
                weight.copy_(noise)
            elif weight.ndim > 1:
                weight.copy_(noise * weight.shape[-1] ** -0.5)
            elif "inv_freq" not in name:
                weight.copy_(1 + 0.3 * noise)
    return module.eval()


def assert_equal(theirs, ours, expected, weights=None, **options):
    """Strict loading, then outputs of the whole sequence and of single steps within 1e-5 of the largest number."""
    ours.load_state_dict(theirs.state_dict() if weights is None else weights, strict=True)
    with torch.no_grad():
        y, _ = ours(inputs(), **options)
        steps, _ = stepwise(ours, inputs()) if not options else (y, None)
    scale = expected.abs().max()
    assert 0.1 < scale < 1e3
    assert (y - expected).abs().max() <= 1e-5 * scale
    assert (steps - expected).abs().max() <= 1e-5 * scale


def jamba(**changes):
    sizes = {"mamba_d_state": 8, "mamba_dt_rank": 3, "num_experts": 4, "num_experts_per_tok": 2}
    return transformers.JambaConfig(**SIZES, **HEADS, **sizes | changes)


def nemotron(**changes):
    mamba = {"mamba_num_heads": 6, "mamba_head_dim": 8, "ssm_state_size": 8, "n_groups": 2, "chunk_size": 8}
    experts = {"n_routed_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 24}
    sizes = {"head_dim": 8, "moe_shared_expert_intermediate_size": 40, "routed_scaling_factor": 2.5}
    changes = {"layers_block_type": ["mamba"], **changes}
    return transformers.NemotronHConfig(hidden_size=D_MODEL, **HEADS, **mamba, **experts, **sizes, **changes)


def qwen(kind):
    linear = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8}
    experts = {"num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 24}
    sizes = {"linear_value_head_dim": 6, "head_dim": 16, "shared_expert_intermediate_size": 40, "layer_types": [kind]}
    return transformers.Qwen3NextConfig(**SIZES, **HEADS, **linear, **experts, **sizes)


@torch.no_grad()
def test_mamba():
    theirs = stir(MambaMixer(transformers.MambaConfig(**SIZES, state_size=8), 0))
    assert_equal(theirs, Mamba(D_MODEL, 8), theirs(inputs()))


@torch.no_grad()
def test_falcon_mamba():
    config = transformers.FalconMambaConfig(**SIZES, state_size=8)
    theirs = stir(FalconMambaMixer(config, 0, initialize_mixer_weights=False))
    assert_equal(theirs, Mamba(D_MODEL, 8, bcdt_norm="weightless"), theirs(inputs()))


@torch.no_grad()
def test_jambas_mamba():
    theirs = stir(JambaMambaMixer(jamba(), 0))
    assert_equal(theirs, Mamba(D_MODEL, 8, dt_rank=3, bcdt_norm="learned"), theirs(inputs()))


@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_zambas_mamba(bias):
    config = transformers.ZambaConfig(
        **SIZES, mamba_d_state=8, mamba_dt_rank=3, n_mamba_heads=2, layers_block_type=["mamba"], mamba_proj_bias=bias
    )
    theirs = stir(ZambaMambaMixer(config, 0))
    ours = Mamba(D_MODEL, 8, dt_rank=3, num_heads=2, bias=bias)
    assert_equal(theirs, ours, theirs(inputs()), zamba_weights(theirs.state_dict()))


@torch.no_grad()
def test_mamba2():
    config = transformers.Mamba2Config(**SIZES, state_size=8, num_heads=8, head_dim=8, n_groups=2, chunk_size=8)
    theirs = stir(Mamba2Mixer(config, 0))
    assert_equal(theirs, Mamba2(D_MODEL, 8, headdim=8, ngroups=2), theirs(inputs()))


@pytest.mark.parametrize("lowest", [0.001, 1.0])
@torch.no_grad()
def test_nemotrons_mamba2(lowest):
    """With the lower limit of Δ, which in the second case much of Δ falls below."""
    theirs = stir(nemotron_h.NemotronHMamba2Mixer(nemotron(time_step_min=lowest), 0))
    ours = Mamba2(D_MODEL, 8, headdim=8, nheads=6, ngroups=2, dt_limit=(lowest, float("inf")))
    assert_equal(theirs, ours, theirs(inputs()))


@torch.no_grad()
def test_qwens_gated_deltanet():
    theirs = stir(qwen3_next.Qwen3NextGatedDeltaNet(qwen("linear_attention"), 0))
    assert_equal(theirs, GatedDeltaNet(D_MODEL, 2, 4, 8, 6), theirs(inputs()))


@torch.no_grad()
def test_recurrent_gemmas_recurrent_block():
    config = transformers.RecurrentGemmaConfig(**SIZES, **HEADS, lru_width=32)
    theirs = stir(recurrent_gemma.RecurrentGemmaRecurrentBlock(config, 0))
    expected, _ = theirs(inputs(), POSITIONS.expand(BATCH, -1), None, use_cache=False)
    assert_equal(theirs, RGLRU(D_MODEL, 32, 4), expected)


@torch.no_grad()
def test_jambas_attention():
    theirs = stir(JambaAttention(jamba(), 0))
    assert_equal(theirs, Attention(D_MODEL, 4, 2), theirs(inputs(), attention_mask=mask())[0])


@torch.no_grad()
def test_nemotrons_attention():
    config = nemotron(layers_block_type=["attention"])
    config._attn_implementation = "eager"
    theirs = stir(nemotron_h.NemotronHAttention(config, 0))
    assert_equal(theirs, Attention(D_MODEL, 4, 2, 8), theirs(inputs(), attention_mask=mask())[0])


@torch.no_grad()
def test_qwens_attention():
    config = qwen("full_attention")
    theirs = stir(qwen3_next.Qwen3NextAttention(config, 0))
    rotary = qwen3_next.Qwen3NextRotaryEmbedding(config)(inputs(), POSITIONS)
    expected, _ = theirs(inputs(), rotary, mask())
    ours = Attention(D_MODEL, 4, 2, 16, rope=1e4, rotary_fraction=0.25, qk_norm=True, output_gate=True)
    assert config.rope_parameters["rope_theta"] == 1e4
    assert_equal(theirs, ours, expected)


@torch.no_grad()
def test_recurrent_gemmas_attention_in_its_window():
    config = transformers.RecurrentGemmaConfig(**SIZES, **HEADS | {"num_key_value_heads": 1}, attention_window_size=6)
    theirs = stir(recurrent_gemma.RecurrentGemmaAttention(config, 0))
    expected, _ = theirs(inputs(), POSITIONS, mask(window=6))
    ours = Attention(D_MODEL, 4, 1, rope=1e4, rotary_fraction=0.5, window=6, out_bias=True)
    assert_equal(theirs, ours, expected)


@torch.no_grad()
def test_zambas_shared_block():
    config = transformers.ZambaConfig(**SIZES, **HEADS | {"num_key_value_heads": 4}, layers_block_type=["hybrid"])
    theirs = stir(ZambaAttentionDecoderLayer(config))
    linear = stir(torch.nn.ModuleList(torch.nn.Linear(D_MODEL, D_MODEL, bias=False) for _ in range(3)))
    embeddings = inputs(seed=2)
    expected = linear[2](theirs(inputs(), embeddings, 0, mask()))
    ours = SharedAttention(D_MODEL, 4, 48, 3)
    weights = theirs.state_dict() | {f"linear.{name}": value for name, value in linear.state_dict().items()}
    assert_equal(theirs, ours, expected, weights, embeddings=embeddings, call=2)


@torch.no_grad()
def test_zamba2s_shared_block():
    """Two blocks take turns: each has adapters for its own calls, here the second for calls 1 and 3 of four."""
    sizes = {"num_mem_blocks": 2, "adapter_rank": 5, "use_mem_rope": True, "layers_block_type": ["hybrid"] * 4}
    config = transformers.Zamba2Config(
        **SIZES | {"num_hidden_layers": 4}, **HEADS | {"num_key_value_heads": 4}, **sizes, mamba_ngroups=1
    )
    theirs = stir(zamba2.Zamba2AttentionDecoderLayer(config, block_id=1))
    linear = stir(torch.nn.ModuleList(torch.nn.Linear(D_MODEL, D_MODEL, bias=False) for _ in range(2)))
    embeddings, rotary = inputs(seed=2), zamba2.Zamba2RotaryEmbedding(config)(inputs(), POSITIONS)
    expected = linear[1](theirs(inputs(), embeddings, 3, mask(), position_embeddings=rotary))
    adapters = "feed_forward.gate_up_proj_adapter_list"
    weights = renamed(theirs, **{f"{adapters}.1": "adapter.0", f"{adapters}.3": "adapter.1"})
    gate_up = weights.pop("feed_forward.gate_up_proj.weight")
    weights["feed_forward.gate_proj.weight"], weights["feed_forward.up_proj.weight"] = gate_up.chunk(2)
    weights |= {f"linear.{name}": value for name, value in linear.state_dict().items()}
    ours = SharedAttention(D_MODEL, 4, 48, 2, adapter_rank=5, rope=1e4)
    assert_equal(theirs, ours, expected, weights, embeddings=embeddings, call=1)


def renamed(theirs, **names):
    weights = theirs.state_dict()
    for old, new in names.items():
        weights = {name.replace(f"{old}.", f"{new}.", 1): value for name, value in weights.items()}
    return weights


@torch.no_grad()
def test_jambas_experts():
    theirs = stir(JambaSparseMoeBlock(jamba()))
    ours = MoE(D_MODEL, 48, 4, 2)
    assert_equal(theirs, ours, theirs(inputs()), renamed(theirs, router="gate"))


@torch.no_grad()
def test_qwens_experts():
    theirs = stir(qwen3_next.Qwen3NextSparseMoeBlock(qwen("full_attention")))
    assert_equal(theirs, MoE(D_MODEL, 24, 6, 3, normalize=True, shared_d_ff=40, shared_gate=True), theirs(inputs()))


@pytest.mark.parametrize("latent", [None, 20])
@torch.no_grad()
def test_nemotrons_experts(latent):
    theirs = stir(nemotron_h.NemotronHMoE(nemotron(moe_latent_size=latent)))
    options = {"kind": "relu2", "score": "sigmoid", "normalize": True, "scale": 2.5, "shared_d_ff": 40}
    ours = MoE(D_MODEL, 24, 6, 3, **options, latent=latent)
    assert_equal(theirs, ours, theirs(inputs()), renamed(theirs, shared_experts="shared_expert"))


@torch.no_grad()
def test_mlps():
    theirs = stir(JambaMLP(jamba()))
    assert_equal(theirs, MLP(D_MODEL, 48), theirs(inputs()))
    theirs = stir(nemotron_h.NemotronHMLP(nemotron()))
    assert_equal(theirs, MLP(D_MODEL, 48, "relu2"), theirs(inputs()))
    theirs = stir(recurrent_gemma.RecurrentGemmaMlp(transformers.RecurrentGemmaConfig(**SIZES, **HEADS)))
    assert_equal(theirs, MLP(D_MODEL, 24, "geglu_tanh", bias=True), theirs(inputs()))
