"""The formulas against the published shapes of real models, and against sums done the long way."""

import math

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from ssm_kit import cost
from ssm_kit.cost import PRESETS, Stack

MiB, GiB = 2**20, 2**30

# (attention layers, KV heads, head dim) and the bytes one token adds in bf16
CACHES = {
    "Jamba v0.1": ((4, 8, 128), 16_384),
    "Mamba-2-Hybrid 8B": ((4, 8, 128), 16_384),
    "Nemotron-H-8B": ((4, 8, 128), 16_384),
    "Nemotron-H-56B": ((10, 8, 128), 40_960),
    "Nemotron Nano 12B-v2": ((6, 8, 128), 24_576),
    "Nemotron Nano 9B-v2": ((4, 8, 128), 16_384),
    "Qwen3-Next": ((12, 2, 256), 24_576),
    "Nemotron 3 Nano": ((6, 2, 128), 6_144),
    "Nemotron 3 Super": ((8, 2, 128), 8_192),
    "Zamba-7B": ((13, 16, 464), 386_048),
    "Zamba2-2.7B": ((9, 32, 160), 184_320),
    "Zamba2-7B": ((13, 32, 224), 372_736),
    "RecurrentGemma-2B": ((8, 1, 256), 8_192),
    "RecurrentGemma-9B": ((12, 1, 256), 12_288),
    "Llama-2-7B": ((32, 32, 128), 524_288),
    "Llama-3-8B": ((32, 8, 128), 131_072),
    "Mixtral-8x7B": ((32, 8, 128), 131_072),
    "Llama-3-70B": ((80, 8, 128), 327_680),
    "Qwen3-8B": ((36, 8, 128), 147_456),
}

# (recurrent layers, channels, N), numbers held, MiB in bf16; (convolved channels, MiB of their window in bf16)
STATES = {
    "Mamba-1 2.8B": ((64, 5120, 16), 5_242_880, 10.0, (5120, 1.9)),
    "Falcon Mamba 7B": ((64, 8192, 16), 8_388_608, 16.0, (8192, 3.0)),
    "Mamba-2 2.7B": ((64, 80 * 64, 128), 41_943_040, 80.0, (5120 + 2 * 128, 2.0)),
    "Jamba v0.1": ((28, 8192, 16), 3_670_016, 7.0, (8192, 1.3)),
    "Mamba-2-Hybrid 8B": ((24, 128 * 64, 128), 25_165_824, 48.0, (8192 + 16 * 128, 1.4)),
    "Nemotron-H-8B": ((24, 128 * 64, 128), 25_165_824, 48.0, (8192 + 16 * 128, 1.4)),
    "Nemotron-H-56B": ((54, 256 * 64, 256), 226_492_416, 432.0, (16384 + 16 * 256, 6.3)),
    "Nemotron Nano 12B-v2": ((28, 128 * 80, 128), 36_700_160, 70.0, (10240 + 16 * 128, 2.0)),
    "Nemotron Nano 9B-v2": ((27, 128 * 80, 128), 35_389_440, 67.5, (10240 + 16 * 128, 1.9)),
    "Qwen3-Next": ((36, 32 * 128, 128), 18_874_368, 36.0, (8192, 1.7)),
    "Nemotron 3 Nano": ((23, 64 * 64, 128), 12_058_624, 23.0, (4096 + 16 * 128, 0.8)),
    "Nemotron 3 Super": ((40, 128 * 64, 128), 41_943_040, 80.0, (8192 + 16 * 128, 2.3)),
    "Zamba-7B": ((76, 7424, 16), 9_027_584, 17.2, (7424, 3.2)),
    "Zamba2-2.7B": ((54, 80 * 64, 64), 17_694_720, 33.8, (5120 + 2 * 64, 1.6)),
    "Zamba2-7B": ((81, 112 * 64, 64), 37_158_912, 70.9, (7168 + 4 * 64, 3.4)),
    "RecurrentGemma-2B": ((18, 2560, 1), 46_080, 0.09, (2560, 0.26)),
    "RecurrentGemma-9B": ((26, 4096, 1), 106_496, 0.2, (4096, 0.6)),
}


def rounded_like(printed: float) -> float:
    """Half a unit of the last printed decimal."""
    return 0.5 * 10 ** -len(str(printed).split(".")[1]) * (1 + 1e-12)


class TestRealModels:
    @pytest.mark.parametrize("name", CACHES)
    def test_cache_per_token(self, name):
        shape, per_token = CACHES[name]
        assert cost.kv_cache_bytes(*shape) == per_token

    @pytest.mark.parametrize("name", STATES)
    def test_state_and_convolution_window(self, name):
        shape, numbers, megabytes, (conv_channels, conv_megabytes) = STATES[name]
        assert cost.recurrent_state_bytes(*shape, dtype_bytes=1) == numbers
        assert cost.recurrent_state_bytes(*shape) == 2 * numbers
        assert cost.recurrent_state_bytes(*shape, dtype_bytes=4) == 4 * numbers
        assert cost.recurrent_state_bytes(*shape) / MiB == pytest.approx(megabytes, abs=rounded_like(megabytes))
        window = cost.conv_window_bytes(shape[0], conv_channels) / MiB
        assert window == pytest.approx(conv_megabytes, abs=rounded_like(conv_megabytes))

    @pytest.mark.parametrize(
        ("name", "tokens", "size"),
        [
            ("Jamba v0.1", 2**18, 4 * GiB),
            ("Nemotron Nano 12B-v2", 2**17, 3 * GiB),
            ("Nemotron Nano 9B-v2", 2**17, 2 * GiB),
            ("Qwen3-Next", 2**18, 6 * GiB),
            ("Nemotron 3 Super", 2**20, 8 * GiB),
            ("Llama-3-8B", 2**17, 16 * GiB),
            ("Llama-3-8B", 2**20, 128 * GiB),
            ("Llama-2-7B", 100_000, 52_428_800_000),
        ],
    )
    def test_cache_of_a_long_sequence(self, name, tokens, size):
        assert cost.kv_cache_bytes(*CACHES[name][0], tokens) == size

    @pytest.mark.parametrize(("name", "size"), [("RecurrentGemma-2B", 16 * MiB), ("RecurrentGemma-9B", 24 * MiB)])
    def test_a_window_caps_the_cache(self, name, size):
        shape, per_token = CACHES[name]
        assert cost.kv_cache_bytes(*shape, 100_000, window=2048) == size
        assert cost.kv_cache_bytes(*shape, 100, window=2048) == 100 * per_token

    @pytest.mark.parametrize(
        ("name", "dtype_bytes", "tokens"),
        [("Mamba-1 2.8B", 2, 80), ("Mamba-2 2.7B", 2, 640), ("Nemotron 3 Super", 4, 1280)],
    )
    def test_a_fixed_state_is_worth_this_many_llama_tokens(self, name, dtype_bytes, tokens):
        state = cost.recurrent_state_bytes(*STATES[name][0], dtype_bytes=dtype_bytes)
        assert cost.crossover_tokens(state, CACHES["Llama-3-8B"][1]) == tokens

    def test_shared_weights_do_not_share_a_cache(self):
        assert CACHES["Zamba-7B"][1] / cost.kv_cache_bytes(1, 16, 464) == 13
        assert CACHES["Zamba-7B"][1] / CACHES["Llama-3-8B"][1] == pytest.approx(2.9, abs=0.05)

    @pytest.mark.parametrize(
        ("preset", "around_it", "published"),
        [
            # biases, norms, token and position embeddings
            ("130M", 12 * (9 * 768 + 3072) + 2 * 768 + (50_257 + 1024) * 768, 124_439_808),
            # norms, embedding and output layer
            ("8B", (2 * 32 + 1) * 4096 + 2 * 128_256 * 4096, 8_030_261_248),
            ("70B", (2 * 80 + 1) * 8192 + 2 * 128_256 * 8192, 70_553_706_496),
        ],
    )
    def test_presets_have_the_weights_of_the_real_models(self, preset, around_it, published):
        stack = PRESETS[preset]
        assert stack.weights(stack.layers) + around_it == published

    def test_presets_have_the_caches_of_the_real_models(self):
        for preset, name in (("8B", "Llama-3-8B"), ("70B", "Llama-3-70B")):
            assert PRESETS[preset].memory(PRESETS[preset].layers, 1).total == CACHES[name][1]


class TestScoreTerm:
    def test_crossover_of_the_8b_shape(self):
        assert PRESETS["8B"].crossover_context() == 26_624

    @pytest.mark.parametrize(
        ("context", "ratio"), [(1024, 0.038), (2048, 0.077), (8192, 0.308), (32_768, 1.231), (131_072, 4.923)]
    )
    def test_ratio_to_the_linear_layers(self, context, ratio):
        work = PRESETS["8B"].token_work(32, context)
        assert work.score / work.linear == pytest.approx(ratio, abs=0.0005)

    @pytest.mark.parametrize("preset", PRESETS)
    def test_terms_meet_at_the_crossover(self, preset):
        stack = PRESETS[preset]
        context = round(stack.crossover_context())
        work = stack.token_work(stack.layers, context)
        assert work.score == work.linear
        whole = stack.sequence_work(stack.layers, 2 * context)  # mean context is half the length
        assert whole.score / whole.linear == pytest.approx(1, rel=1 / context)

    @settings(deadline=None)  # a busy machine is not a failure
    @given(tokens=st.integers(0, 300), width=st.integers(1, 64))
    def test_a_causal_sequence_is_the_sum_of_its_tokens(self, tokens, width):
        each = sum(cost.score_flops(n, width) for n in range(1, tokens + 1))
        assert cost.causal_score_flops(tokens, width) == each

    def test_causal_is_half_the_square(self):
        assert cost.causal_score_flops(2**20, 64) / (2**20 * cost.score_flops(2**20, 64)) == pytest.approx(
            0.5, rel=1e-6
        )


class TestScan:
    def test_formulas_by_hand(self):
        assert cost.linear_flops(10, tokens=3) == 60
        assert cost.mamba1_scan_flops(tokens=2, channels=3, state=5) == 9 * 2 * 3 * 5
        assert cost.ssd_flops(tokens=2, heads=3, head_dim=5, state=7, chunk=11) == 2 * 3 * (4 * 35 + 22 * 12)
        assert cost.ssd_step_flops(heads=3, head_dim=5, state=7) == 5 * 3 * 35

    @settings(deadline=None)  # a busy machine is not a failure
    @given(tokens=st.integers(0, 2**20), factor=st.integers(1, 8))
    def test_proportional_to_length(self, tokens, factor):
        assert cost.ssd_flops(factor * tokens, 8, 64, 128) == factor * cost.ssd_flops(tokens, 8, 64, 128)

    def test_a_mamba2_mixer_has_the_weights_of_its_projections(self):
        stack = PRESETS["8B"]
        d, inner, heads, N = 4096, 8192, 128, 128
        assert (stack.ssm_channels, stack.ssm_heads) == (inner, heads)
        assert stack.ssm_weights == d * (inner + inner + N + N + heads) + inner * d
        assert stack.ssm_weights / (6 * d**2) == pytest.approx(1, abs=0.02)


@settings(deadline=None)  # a busy machine is not a failure
@given(preset=st.sampled_from(list(PRESETS)), data=st.data(), tokens=st.integers(1, 2**20))
def test_a_mixture_is_between_its_ends_in_proportion(preset, data, tokens):
    stack = PRESETS[preset]
    k, n = data.draw(st.integers(0, stack.layers)), stack.layers
    for measure in (stack.sequence_work, stack.token_work, stack.memory):
        none, some, all_ = (measure(layers, tokens) for layers in (0, k, n))
        for kind in (*vars(some), "total"):
            ends = (n - k) * getattr(none, kind) + k * getattr(all_, kind)
            assert n * getattr(some, kind) == ends
    pure = stack.memory(0, tokens)
    assert (pure.cache, pure.state, pure.conv) == (
        0,
        n * 2 * stack.d_model * 128 * 2,
        n * (2 * stack.d_model + 256) * 3 * 2,
    )
    assert stack.sequence_work(0, tokens).score == stack.sequence_work(n, tokens).scan == 0


def test_recurrent_memory_is_the_same_at_every_length_and_the_larger_one_at_first():
    stack = PRESETS["8B"]
    assert stack.memory(0, 1) == stack.memory(0, 10**6)
    assert stack.memory(0, 100).total > stack.memory(32, 100).total
    crossing = cost.crossover_tokens(stack.memory(0, 1).total, stack.memory(32, 1).total)
    assert stack.memory(0, 1).total > stack.memory(32, math.floor(crossing)).total
    assert stack.memory(0, 1).total < stack.memory(32, math.ceil(crossing)).total


def test_a_stack_is_frozen():
    with pytest.raises(AttributeError):
        PRESETS["8B"].layers = 1


SMALL = {
    "d_model": 64, "layers": 2, "query_heads": 2, "kv_heads": 1, "head_dim": 32, "mlp_width": 256, "mlp_matrices": 2
}  # fmt: skip


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cost.kv_cache_bytes(-1, 8, 128), "attention_layers must be a whole number >= 0; got -1"),
        (lambda: cost.kv_cache_bytes(1, 0, 128), "kv_heads must be a whole number >= 1; got 0"),
        (lambda: cost.kv_cache_bytes(1, 8, 128, 2.5), r"tokens must be a whole number >= 0; got 2\.5"),
        (lambda: cost.kv_cache_bytes(1, 8, 128, window=0), "window must be a whole number >= 1; got 0"),
        (lambda: cost.kv_cache_bytes(1, 8, 128, dtype_bytes=True), "dtype_bytes must be .*; got True"),
        (lambda: cost.recurrent_state_bytes(1, 8, 0), "state must be a whole number >= 1; got 0"),
        (lambda: cost.conv_window_bytes(1, 8, 0), "width must be a whole number >= 1; got 0"),
        (lambda: cost.linear_flops(-2), "weights must be a whole number >= 0; got -2"),
        (lambda: cost.score_flops(-1, 8), "context must be a whole number >= 0; got -1"),
        (lambda: cost.causal_score_flops(4, 0), "query_width must be a whole number >= 1; got 0"),
        (lambda: cost.mamba1_scan_flops(4, "8", 16), "channels must be a whole number >= 1; got '8'"),
        (lambda: cost.ssd_flops(4, 8, 64, 128, chunk=0), "chunk must be a whole number >= 1; got 0"),
        (lambda: cost.ssd_step_flops(0, 64, 128), "heads must be a whole number >= 1; got 0"),
        (lambda: cost.crossover_context(1, 0), "query_width must be a whole number >= 1; got 0"),
        (lambda: cost.crossover_tokens(1, 0), "cache_bytes_per_token must be a whole number >= 1; got 0"),
        (lambda: Stack(**{**SMALL, "layers": 0}), "layers must be a whole number >= 1; got 0"),
        (lambda: Stack(**{**SMALL, "d_model": 65}), "d_model must be a multiple of 32; got 65"),
        (lambda: Stack(**SMALL).memory(3, 1), "attention_layers must be at most layers = 2; got 3"),
        (lambda: Stack(**SMALL).sequence_work(-1, 1), "attention_layers must be a whole number >= 0; got -1"),
        (lambda: Stack(**SMALL).token_work(0, -1), "context must be a whole number >= 0; got -1"),
        (lambda: Stack(**SMALL).weights(0.5), r"attention_layers must be a whole number >= 0; got 0\.5"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
