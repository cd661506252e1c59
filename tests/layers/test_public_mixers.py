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


def assert_equal(theirs, ours, run=None, translate=dict, **options):
    """Strict loading, then equal outputs over the sequence and in steps, equal gradients of the input and all weights.

    `run` applies the other module to x (B, L, d_model); `translate` takes its weights, or gradients, to our names.
    """
    ours.load_state_dict(translate(theirs.state_dict()), strict=True)
    expected, gradient = outcome(run or theirs)
    y, own_gradient = outcome(lambda x: ours(x, **options)[0])
    assert 0.1 < expected.abs().max() < 1e3
    close(y, expected)
    close(own_gradient, gradient)
    gradients = translate({name: weight.grad for name, weight in theirs.named_parameters() if weight.grad is not None})
    assert gradients.keys() == {name for name, weight in ours.named_parameters() if weight.grad is not None}
    for name in gradients:
        close(ours.get_parameter(name).grad, gradients[name])
    if not options:
        with torch.no_grad():
            close(stepwise(ours, inputs())[0], expected)


def outcome(run):
    """The output and the gradient at the input; gradients at the weights stay with them."""
    x = inputs().requires_grad_()
    y = run(x)
    (y * inputs(seed=3)).sum().backward()
    return y.detach(), x.grad


def close(ours, theirs):
    assert torch.isfinite(theirs).all()
    assert theirs.abs().max() > 0
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


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


def test_mamba():
    theirs = stir(MambaMixer(transformers.MambaConfig(**SIZES, state_size=8), 0))
    assert_equal(theirs, Mamba(D_MODEL, 8))


def test_falcon_mamba():
    config = transformers.FalconMambaConfig(**SIZES, state_size=8)
    theirs = stir(FalconMambaMixer(config, 0, initialize_mixer_weights=False))
    assert_equal(theirs, Mamba(D_MODEL, 8, bcdt_norm="weightless"))


def test_jambas_mamba():
    theirs = stir(JambaMambaMixer(jamba(), 0))
    assert_equal(theirs, Mamba(D_MODEL, 8, dt_rank=3, bcdt_norm="learned"))


@pytest.mark.parametrize("bias", [False, True])
def test_zambas_mamba(bias):
    config = transformers.ZambaConfig(
        **SIZES, mamba_d_state=8, mamba_dt_rank=3, n_mamba_heads=2, layers_block_type=["mamba"], mamba_proj_bias=bias
    )
    theirs = stir(ZambaMambaMixer(config, 0))
    ours = Mamba(D_MODEL, 8, dt_rank=3, num_heads=2, bias=bias)
    assert_equal(theirs, ours, translate=zamba_weights)


def test_mamba2():
    config = transformers.Mamba2Config(**SIZES, state_size=8, num_heads=8, head_dim=8, n_groups=2, chunk_size=8)
    theirs = stir(Mamba2Mixer(config, 0))
    assert_equal(theirs, Mamba2(D_MODEL, 8, headdim=8, ngroups=2))


@pytest.mark.parametrize("lowest", [0.001, 1.0])
def test_nemotrons_mamba2(lowest):
    """With the lower limit of Δ, which in the second case much of Δ falls below."""
    theirs = stir(nemotron_h.NemotronHMamba2Mixer(nemotron(time_step_min=lowest), 0))
    ours = Mamba2(D_MODEL, 8, headdim=8, nheads=6, ngroups=2, dt_limit=(lowest, float("inf")))
    assert_equal(theirs, ours)


def test_qwens_gated_deltanet():
    theirs = stir(qwen3_next.Qwen3NextGatedDeltaNet(qwen("linear_attention"), 0))
    assert_equal(theirs, GatedDeltaNet(D_MODEL, 2, 4, 8, 6))


def test_recurrent_gemmas_recurrent_block():
    config = transformers.RecurrentGemmaConfig(**SIZES, **HEADS, lru_width=32)
    theirs = stir(recurrent_gemma.RecurrentGemmaRecurrentBlock(config, 0))
    positions = POSITIONS.expand(BATCH, -1)
    assert_equal(theirs, RGLRU(D_MODEL, 32, 4), lambda x: theirs(x, positions, None, use_cache=False)[0])


def test_jambas_attention():
    theirs = stir(JambaAttention(jamba(), 0))
    assert_equal(theirs, Attention(D_MODEL, 4, 2), lambda x: theirs(x, attention_mask=mask())[0])


def test_nemotrons_attention():
    config = nemotron(layers_block_type=["attention"])
    config._attn_implementation = "eager"
    theirs = stir(nemotron_h.NemotronHAttention(config, 0))
    assert_equal(theirs, Attention(D_MODEL, 4, 2, 8), lambda x: theirs(x, attention_mask=mask())[0])


def test_qwens_attention():
    config = qwen("full_attention")
    theirs = stir(qwen3_next.Qwen3NextAttention(config, 0))
    rotary = qwen3_next.Qwen3NextRotaryEmbedding(config)(inputs(), POSITIONS)
    ours = Attention(D_MODEL, 4, 2, 16, rope=1e4, rotary_fraction=0.25, qk_norm=True, output_gate=True)
    assert config.rope_parameters["rope_theta"] == 1e4
    assert_equal(theirs, ours, lambda x: theirs(x, rotary, mask())[0])


def test_recurrent_gemmas_attention_in_its_window():
    config = transformers.RecurrentGemmaConfig(**SIZES, **HEADS | {"num_key_value_heads": 1}, attention_window_size=6)
    theirs = stir(recurrent_gemma.RecurrentGemmaAttention(config, 0))
    ours = Attention(D_MODEL, 4, 1, rope=1e4, rotary_fraction=0.5, window=6, out_bias=True)
    assert_equal(theirs, ours, lambda x: theirs(x, POSITIONS, mask(window=6))[0])


def test_zambas_shared_block():
    config = transformers.ZambaConfig(**SIZES, **HEADS | {"num_key_value_heads": 4}, layers_block_type=["hybrid"])
    theirs, embeddings = hybrid(ZambaAttentionDecoderLayer(config), 3), inputs(seed=2)

    def run(x):
        return theirs.linear[2](theirs.block(x, embeddings, 0, mask()))

    ours = SharedAttention(D_MODEL, 4, 48, 3)
    assert_equal(theirs, ours, run, renaming({"block.": ""}), embeddings=embeddings, call=2)


def test_zamba2s_shared_block():
    """Two blocks take turns: each has adapters for its own calls, here the second for calls 1 and 3 of four."""
    sizes = {"num_mem_blocks": 2, "adapter_rank": 5, "use_mem_rope": True, "layers_block_type": ["hybrid"] * 4}
    config = transformers.Zamba2Config(
        **SIZES | {"num_hidden_layers": 4}, **HEADS | {"num_key_value_heads": 4}, **sizes, mamba_ngroups=1
    )
    theirs = hybrid(zamba2.Zamba2AttentionDecoderLayer(config, block_id=1), 2)
    embeddings, rotary = inputs(seed=2), zamba2.Zamba2RotaryEmbedding(config)(inputs(), POSITIONS)

    def run(x):
        return theirs.linear[1](theirs.block(x, embeddings, 3, mask(), position_embeddings=rotary))

    def translate(weights):
        names = {"block.": "", "feed_forward.gate_up_proj_adapter_list": "adapter"}
        named = renaming({**names, "adapter.1": "adapter.0", "adapter.3": "adapter.1"})(weights)
        gate_up = named.pop("feed_forward.gate_up_proj.weight")
        named["feed_forward.gate_proj.weight"], named["feed_forward.up_proj.weight"] = gate_up.chunk(2)
        return named

    ours = SharedAttention(D_MODEL, 4, 48, 2, adapter_rank=5, rope=1e4)
    assert_equal(theirs, ours, run, translate, embeddings=embeddings, call=1)


def hybrid(block, calls):
    """A shared block with the linear maps that follow it, which transformers keeps in the layers that call it."""
    linear = torch.nn.ModuleList(torch.nn.Linear(D_MODEL, D_MODEL, bias=False) for _ in range(calls))
    both = torch.nn.Module()
    both.block, both.linear = block, linear
    return stir(both)


def renaming(names):
    """A translation that replaces the old parts of names by the new ones, in this order."""

    def translate(weights):
        for old, new in names.items():
            weights = {name.replace(old, new, 1): value for name, value in weights.items()}
        return weights

    return translate


def test_jambas_experts():
    theirs = stir(JambaSparseMoeBlock(jamba()))
    ours = MoE(D_MODEL, 48, 4, 2)
    assert_equal(theirs, ours, translate=renaming({"router.": "gate."}))


def test_qwens_experts():
    theirs = stir(qwen3_next.Qwen3NextSparseMoeBlock(qwen("full_attention")))
    assert_equal(theirs, MoE(D_MODEL, 24, 6, 3, normalize=True, shared_d_ff=40, shared_gate=True))


@pytest.mark.parametrize("latent", [None, 20])
def test_nemotrons_experts(latent):
    theirs = stir(nemotron_h.NemotronHMoE(nemotron(moe_latent_size=latent)))
    options = {"kind": "relu2", "score": "sigmoid", "normalize": True, "scale": 2.5, "shared_d_ff": 40}
    ours = MoE(D_MODEL, 24, 6, 3, **options, latent=latent)
    assert_equal(theirs, ours, translate=renaming({"shared_experts.": "shared_expert."}))


def test_mlps():
    theirs = stir(JambaMLP(jamba()))
    assert_equal(theirs, MLP(D_MODEL, 48))
    theirs = stir(nemotron_h.NemotronHMLP(nemotron()))
    assert_equal(theirs, MLP(D_MODEL, 48, "relu2"))
    theirs = stir(recurrent_gemma.RecurrentGemmaMlp(transformers.RecurrentGemmaConfig(**SIZES, **HEADS)))
    assert_equal(theirs, MLP(D_MODEL, 24, "geglu_tanh", bias=True))
