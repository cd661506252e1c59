"""The zoo's numbers, computed from its blocks, against numbers that were written down beside their sources."""

import re
import subprocess
import sys
from typing import NamedTuple

import pytest
import torch

from ssm_kit import layers, zoo
from ssm_kit.zoo import blocks

MIB = 2**20
ALL = [zoo.get(id) for id in zoo.ids()]


class Expected(NamedTuple):
    layers: int
    attention: tuple[int, ...] | None  # layers with attention, from 0; None where the order is not known
    mixers: str  # share of attention among the mixers, "attention/all"
    blocks: str  # and among the blocks
    kv: int  # bytes of keys and values per token, bfloat16
    state: int  # numbers in the recurrent state
    conv: float  # MiB of convolution windows, bfloat16


NONE, EVERY_4TH = (), lambda n: tuple(range(3, n, 4))
# The layer counts and positions are those of the sources named, the bytes were computed once by hand from heads, head
# dims and state sizes in the same sources: layers · 2 · KV heads · head dim · 2 bytes, layers · channels · state.
EXPECTED = {
    # github state-spaces/mamba, README (64 layers, d_model 2560) and mamba_simple.py (expand 2, d_state 16)
    "mamba-2.8b": Expected(64, NONE, "0/64", "0/64", 0, 5_242_880, 1.9),
    # the same README, mamba2.py (d_state 128, headdim 64, ngroups 1)
    "mamba2-2.7b": Expected(64, NONE, "0/64", "0/64", 0, 41_943_040, 2.0),
    # config.json of the instruct checkpoint: 64 layers, d_inner 8192
    "falcon-mamba-7b": Expected(64, NONE, "0/64", "0/64", 0, 8_388_608, 3.0),
    # transformers JambaConfig: attention where i % 8 == 4; its 4.0 GiB at 256Ki tokens is AI21's own row
    # (arXiv 2408.12570, table 1: 4GB)
    "jamba-v0.1": Expected(32, (4, 12, 20, 28), "4/32", "4/64", 16_384, 3_670_016, 1.3),
    # transformers ZambaConfig: layers_block_type; 16 heads of 464
    "zamba-7b": Expected(76, (2, *range(7, 76, 6)), "13/89", "13/76", 386_048, 9_027_584, 3.2),
    # transformers Zamba2Config: hybrid_layer_ids; 32 heads of 160
    "zamba2-2.7b": Expected(54, (6, 12, 18, 24, 30, 36, 42, 47, 51), "9/63", "9/54", 184_320, 17_694_720, 1.6),
    # config.json of Zyphra/Zamba2-7B; 32 heads of 224
    "zamba2-7b": Expected(81, (6, *range(11, 81, 6)), "13/94", "13/81", 372_736, 37_158_912, 3.4),
    # github google-deepmind/recurrentgemma: i % 3 == 2, one key head of 256
    "recurrentgemma-2b": Expected(26, tuple(range(2, 26, 3)), "8/26", "8/52", 8_192, 46_080, 0.26),
    "recurrentgemma-9b": Expected(38, tuple(range(2, 38, 3)), "12/38", "12/76", 12_288, 106_496, 0.6),
    # github NVIDIA/Megatron-LM, examples/mamba/README: 56 layers, 4 attention, 28 MLP, 24 Mamba
    "mamba2-hybrid-8b": Expected(56, (10, 22, 33, 45), "4/28", "4/56", 16_384, 25_165_824, 1.4),
    # github Megatron-Bridge, NemotronHModelProvider8B, ...56B; the 56B card: "just ten Attention layers"
    "nemotron-h-8b": Expected(52, (7, 18, 29, 40), "4/28", "4/52", 16_384, 25_165_824, 1.4),
    "nemotron-h-56b": Expected(118, tuple(range(7, 107, 11)), "10/64", "10/118", 40_960, 226_492_416, 6.3),
    # arXiv 2508.14444 §2.1: 62 layers, 6 attention, 28 MLP, 28 Mamba-2; the 9B card: "just four Attention layers"
    "nemotron-nano-12b-v2": Expected(62, (7, 16, 25, 34, 43, 52), "6/34", "6/62", 24_576, 36_700_160, 2.0),
    "nemotron-nano-9b-v2": Expected(56, (14, 21, 30, 39), "4/31", "4/56", 16_384, 35_389_440, 1.9),
    # arXiv 2512.20856, figure 1
    "nemotron-3-nano-30b-a3b": Expected(52, (5, 12, 19, 26, 33, 42), "6/29", "6/52", 6_144, 12_058_624, 0.8),
    # arXiv 2604.12374, table 1
    "nemotron-3-super-120b-a12b": Expected(88, (7, 16, 25, 36, 47, 58, 69, 78), "8/48", "8/88", 8_192, 41_943_040, 2.3),
    # arXiv 2606.15007, figure 2
    "nemotron-3-ultra-550b-a55b": Expected(
        108, (7, 14, 23, 32, 39, 48, 57, 64, 73, 82, 89, 98), "12/60", "12/108", 12_288, 100_663_296, 5.1
    ),
    # github foundation-model-stack/fms-fsdp, mamba_9.8b; state 128 by the release note's appendix
    "bamba-9b": Expected(32, (9, 18, 27), "3/32", "3/64", 12_288, 30_408_704, 1.4),
    # Hugging Face ibm-granite, cards
    "granite-4.0-h-small": Expected(40, None, "4/40", "4/80", 16_384, 37_748_736, 1.7),
    "granite-4.0-h-tiny": Expected(40, None, "4/40", "4/80", 8_192, 14_155_776, 0.7),
    # transformers Qwen3NextConfig: 48 layers, every 4th attention, 2 key heads of 256
    "qwen3-next-80b-a3b": Expected(48, EVERY_4TH(48), "12/48", "12/96", 24_576, 18_874_368, 1.7),
    # transformers Qwen3_5MoeTextConfig
    "qwen3.5-35b-a3b": Expected(40, EVERY_4TH(40), "10/40", "10/80", 20_480, 15_728_640, 1.4),
    # Hugging Face Qwen/Qwen3.6-27B, card
    "qwen3.6-27b": Expected(64, EVERY_4TH(64), "16/64", "16/128", 65_536, 37_748_736, 2.8),
    # transformers OlmoHybridConfig: 30 key heads
    "olmo-hybrid-7b": Expected(32, EVERY_4TH(32), "8/32", "8/64", 122_880, 13_271_040, 1.6),
    # arXiv 2510.26692; one latent of 512 and a key part of 64 per token
    "kimi-linear-48b-a3b": Expected(27, (*EVERY_4TH(24), 26), "7/27", "7/54", 8_064, 10_485_760, 1.4),
    # transformers BailingHybridConfig: every 6th layer
    "ling-3.0-flash": Expected(42, tuple(range(5, 42, 6)), "7/42", "7/84", 8_064, 18_350_080, 2.5),
    # transformers Glm5NextTextConfig: no positional part
    "glm-5.3-flash": Expected(45, EVERY_4TH(45), "11/45", "11/90", 11_264, 35_651_584, 4.8),
    # arXiv 2307.09288, 2401.04088, 2407.21783
    "llama-2-7b": Expected(32, tuple(range(32)), "32/32", "32/64", 524_288, 0, 0),
    "mixtral-8x7b": Expected(32, tuple(range(32)), "32/32", "32/64", 131_072, 0, 0),
    "llama-3-8b": Expected(32, tuple(range(32)), "32/32", "32/64", 131_072, 0, 0),
    "llama-3-70b": Expected(80, tuple(range(80)), "80/80", "80/160", 327_680, 0, 0),
}


def share(fraction: str) -> float:
    attention, of = fraction.split("/")
    return int(attention) / int(of)


def attention_layers(card: zoo.Card) -> tuple[int, ...]:
    """Which layers, as the makers count them, hold attention."""
    per_layer = len(card.pattern()) // card.layers
    return tuple(i // per_layer for i, kind in enumerate(card.pattern()) if "attention" in card.blocks[kind].mixers)


def test_every_card_is_expected():
    assert zoo.ids() == list(EXPECTED)


@pytest.mark.parametrize("card", ALL, ids=zoo.ids())
def test_numbers(card):
    expected = EXPECTED[card.id]
    assert card.layers == expected.layers
    assert card.attention_fraction() == card.attention_fraction(of="mixers") == share(expected.mixers)
    assert card.attention_fraction(of="blocks") == share(expected.blocks)
    assert card.attention_fraction(of="layers") == int(expected.mixers.split("/")[0]) / card.layers
    assert card.kv_bytes_per_token() == expected.kv
    assert card.kv_bytes_per_token(dtype_bytes=1) * 2 == expected.kv
    assert card.state_bytes() == 2 * expected.state
    assert card.state_bytes(dtype_bytes=4) == 4 * expected.state
    assert card.conv_bytes() / MIB == pytest.approx(expected.conv, abs=0.051 if expected.conv > 0.5 else 0.0051)
    if expected.attention is None:
        assert card.pattern() is None
    else:
        assert attention_layers(card) == expected.attention


@pytest.mark.parametrize("card", ALL, ids=zoo.ids())
def test_a_card_is_whole(card):
    assert card.id == card.id.lower()
    assert " " not in card.id
    assert card.name
    assert card.organisation
    assert card.sources
    assert card.published is None or re.fullmatch(r"20\d\d(-\d\d(-\d\d)?)?", card.published)
    assert set(card.layout) == set(card.blocks)
    if (pattern := card.pattern()) is not None:
        assert len(pattern) in (card.layers, 2 * card.layers)
        assert card.blocks[pattern[0]].mixers
    assert all(claim.text and claim.setting and claim.source for claim in card.claims)
    assert card.active_parameters is None or card.active_parameters < card.parameters
    if card.parameters is not None:
        assert (card.experts is not None) == (card.active_parameters is not None)


@pytest.mark.parametrize(
    ("id", "experts", "active", "shared"),
    [
        ("jamba-v0.1", 16, 2, 0),  # transformers JambaConfig
        ("qwen3-next-80b-a3b", 512, 10, 1),  # transformers Qwen3NextConfig
        ("nemotron-3-nano-30b-a3b", 128, 6, 1),  # Megatron-Bridge, Nemotron3NanoProvider
        ("nemotron-3-super-120b-a12b", 512, 22, 1),  # Megatron-LM launch scripts
        ("qwen3.5-35b-a3b", 256, 8, 1),
        ("kimi-linear-48b-a3b", 256, 8, 1),
    ],
)
def test_experts(id, experts, active, shared):
    moe = zoo.get(id).experts
    assert (moe.experts, moe.active, moe.shared) == (experts, active, shared)


def test_models_without_experts_have_none():
    assert zoo.get("mamba2-hybrid-8b").experts is None


@pytest.mark.parametrize(
    ("id", "tokens", "gib"),
    [
        ("jamba-v0.1", 2**18, 4.0),
        ("nemotron-nano-12b-v2", 2**17, 3.0),
        ("nemotron-nano-9b-v2", 2**17, 2.0),
        ("qwen3-next-80b-a3b", 2**18, 6.0),
        ("nemotron-3-super-120b-a12b", 2**20, 8.0),
    ],
)
def test_cache_at_length(id, tokens, gib):
    assert zoo.get(id).cache_bytes(tokens) == gib * 2**30


def test_a_window_stops_the_cache():
    card = zoo.get("recurrentgemma-2b")
    assert card.cache_bytes(100) == 100 * card.kv_bytes_per_token()
    assert card.cache_bytes(2048) == card.cache_bytes(10**6) == 16 * MIB
    assert zoo.get("recurrentgemma-9b").cache_bytes(10**6) == 24 * MIB


def test_shared_weights_do_not_share_a_cache():
    """Zamba-7B holds 2.9 times what Llama 3 8B holds per token, although it has one attention module."""
    ratio = zoo.get("zamba-7b").kv_bytes_per_token() / zoo.get("llama-3-8b").kv_bytes_per_token()
    assert ratio == pytest.approx(2.95, abs=0.005)


@pytest.mark.parametrize(
    ("id", "dtype_bytes", "tokens"),
    [("mamba-2.8b", 2, 80), ("mamba2-2.7b", 2, 640), ("nemotron-3-super-120b-a12b", 4, 1280)],
)
def test_the_fixed_state_is_not_small(id, dtype_bytes, tokens):
    """It is as large as the keys and values of so many tokens of Llama 3 8B."""
    assert zoo.get(id).state_bytes(dtype_bytes) == zoo.get("llama-3-8b").cache_bytes(tokens)


@pytest.mark.parametrize(
    ("block", "layer"),
    [
        (blocks.Mamba(channels=64, state=4), lambda: layers.Mamba(32, d_state=4)),
        (blocks.Mamba2(channels=64, state=8, groups=2), lambda: layers.Mamba2(32, d_state=8, headdim=8, ngroups=2)),
        (
            blocks.GatedDelta(key_heads=2, value_heads=4, key_dim=8, value_dim=16),
            lambda: layers.GatedDeltaNet(32, 2, 4, 8, 16),
        ),
        (blocks.RGLRU(width=24), lambda: layers.RGLRU(32, 24)),
    ],
    ids=lambda part: type(part).__name__ if isinstance(part, blocks.Block) else "",
)
def test_a_block_counts_what_its_layer_holds(block, layer):
    state = layer().init_state(1)
    floating = sum(tensor.numel() for tensor in state if tensor.is_floating_point())
    assert 4 * floating == block.state_bytes(4) + block.conv_bytes(4)


@pytest.mark.parametrize(("window", "held"), [(None, 12), (5, 4)])
def test_attention_counts_what_its_layer_holds(window, held):
    """Of a window of 5 the layer holds 4 tokens: the fifth is the next query itself."""
    layer, block = layers.Attention(32, 4, 2, 8, window=window), blocks.Attention(kv_heads=2, head_dim=8, window=window)
    _, cache = layer(torch.randn(1, 12, 32))
    assert cache.k.nbytes + cache.v.nbytes == block.kv_bytes(held, 4)
    assert block.kv_bytes(12, 4) == block.kv_bytes(window or 12, 4)


def test_reading_the_zoo_does_not_load_torch():
    code = "import sys; from ssm_kit import zoo; zoo.get('jamba-v0.1').state_bytes(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"id must be one of mamba-2.8b, .*; got 'Jamba-v0.1'"):
        zoo.get("Jamba-v0.1")
    with pytest.raises(ValueError, match="of must be one of mixers, blocks, layers; got 'all'"):
        zoo.get("jamba-v0.1").attention_fraction(of="all")
    with pytest.raises(ValueError, match="dtype_bytes must be a whole number >= 1; got 0"):
        zoo.get("jamba-v0.1").state_bytes(0)
