"""Decoding in buffers computes what the model computes; the smoke size shows what grows with context."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from experiments import decoding, machine
from experiments.decoding_models import SMOKE, configs, decode, memories
from experiments.static_attention import WAYS, StaticAttention, split, with_buffers
from ssm_kit import cost, results
from ssm_kit.layers import state_bytes
from ssm_kit.results.plots.serving import decoding as plot
from ssm_kit.results.plots.serving import fastest

ATTENTION = ("attention, MHA", "attention, GQA")
RECURRENT = ("Mamba", "Mamba-2", "Gated DeltaNet")


@pytest.fixture(scope="module")
def smoke(run_smoke) -> dict:
    return run_smoke("decoding")


@pytest.fixture(params=["smoke", "stored"] if "decoding" in results.names() else ["smoke"])
def result(request) -> dict:
    return request.getfixturevalue("smoke") if request.param == "smoke" else results.load("decoding")


def test_schema(smoke):
    results.validate(smoke, "decoding")


@pytest.mark.parametrize("name", configs(SMOKE))
@torch.no_grad()
def test_token_by_token_in_buffers_gives_the_logits_of_the_sequence(name):
    torch.manual_seed(0)
    model = with_buffers(configs(SMOKE)[name]).double()
    ids = torch.randint(256, (2, 9))
    expected = model(ids)[0]
    for way in decoding._ways(model):
        mixers = [block.mixer for block in model.layers]
        states = [mixer.buffer(2, 9) if isinstance(mixer, StaticAttention) else mixer.init_state(2) for mixer in mixers]
        found = torch.stack([decode(model, ids[:, t], states) for t in range(9)], dim=1)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5, msg=f"{name} by {way}")


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 7, 96, 128])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_is_softmax_attention(way, length, kv_heads):
    q, k, v = (torch.randn(2, heads, n, 8) for heads, n in ((4, 1), (kv_heads, length), (kv_heads, length)))
    wide_k, wide_v = (past.repeat_interleave(4 // kv_heads, dim=1) for past in (k, v))
    expected = (q @ wide_k.mT / 8**0.5).softmax(-1) @ wide_v
    if way == "cudnn":  # a GPU's, so that an attention on the CPU must say that it does not work
        assert not StaticAttention(32, 4, kv_heads).works(WAYS[way])
    else:
        torch.testing.assert_close(WAYS[way](q, k, v), expected)


def test_split_reads_long_pasts_in_pieces_without_overflow():
    q, k, v = 100 * torch.ones(1, 1, 1, 4), torch.randn(1, 1, 4096, 4) * 100, torch.randn(1, 1, 4096, 4)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(split(q, k, v), expected)


def test_bytes_held(result):
    data, models = result["data"], result["settings"]["models"]
    dtype_bytes = 2 if result["settings"]["dtype"].startswith("bfloat16") else 4
    for name in ATTENTION:
        block, layers = models[name]["blocks"]["M"], models[name]["pattern"].count("M")
        kv_heads = block["num_kv_heads"] if name == "attention, GQA" else block["num_heads"]
        head_dim = models[name]["d_model"] // block["num_heads"]
        for point in data[name]["one"]:
            assert point["bytes"] == cost.kv_cache_bytes(layers, kv_heads, head_dim, point["context"], dtype_bytes)
    for name in RECURRENT:
        assert len({point["bytes"] for point in data[name]["one"]}) == 1
    last = {name: entry["one"][-1]["bytes"] for name, entry in data.items()}
    assert last["Mamba-2"] < last["hybrid"] < last["attention, GQA"] < last["attention, MHA"]


def test_what_the_largest_batch_yields_falls_with_context_for_attention_alone(result):
    for name, entry in result["data"].items():
        first, last = (point["batch"] / fastest(point) for point in (entry["most"][0], entry["most"][-1]))
        grown = entry["most"][-1]["context"] / entry["most"][0]["context"]
        if name in ATTENTION:
            assert first > grown / 8 * last
        elif name in RECURRENT:
            assert first < 4 * last  # the same computation twice; the clock of a busy machine is not exact


def test_times_are_ordered(result):
    for entry in result["data"].values():
        for point in [*entry["one"], *entry["most"]]:
            for median, low, high in point["milliseconds"].values():
                assert 0 < low <= median <= high


def test_a_batch_that_does_not_fit_is_made_smaller(monkeypatch):
    tried = []

    def at_context(model, context, batch, device, repeats):
        tried.append(batch)
        if batch > 85:
            raise torch.cuda.OutOfMemoryError("full")
        return {"batch": batch}

    monkeypatch.setattr(decoding, "at_context", at_context)
    size = SimpleNamespace(memory=1000, repeats=4)
    assert decoding.as_many_as_fit(None, size, {"bytes": 10, "context": 4}, "cpu") == {"batch": 81}
    assert tried == [100, 90, 81]


def test_finished_models_are_not_measured_again(monkeypatch, tmp_path):
    measured = []

    def of_model(config, size, device):
        measured.append(config)
        if len(measured) == 3:
            raise RuntimeError("stopped")
        return {"n": len(measured)}

    monkeypatch.setattr(decoding, "of_model", of_model)
    options = SimpleNamespace(folder=tmp_path, device="cpu", commit="0123abc")
    with pytest.raises(RuntimeError, match="stopped"):
        decoding.measure(SMOKE, options)
    found = decoding.measure(SMOKE, options)
    assert [record["points"]["n"] for record in found.values()] == [1, 2, 4, 5, 6, 7]
    assert list(found) == list(configs(SMOKE))


def test_memories_have_the_size_of_real_ones():
    model = with_buffers(configs(SMOKE)["hybrid"])
    states = memories(model, 3, 50)
    with torch.no_grad():
        after = list(states)
        logits = decode(model, torch.zeros(3, dtype=torch.int64), after)
        real = model(torch.zeros(3, 50, dtype=torch.int64))[1]
    assert logits.shape == (3, 256)
    assert np.isfinite(logits.numpy()).all()
    position_bytes = 3 * 8  # a KVCache counts tokens in a tensor, a Buffer in a number
    assert state_bytes(states) == state_bytes(after) == real.nbytes - position_bytes
    assert states[4].length == 49
    assert after[4].length == 50


def test_the_plot_draws_every_model_with_its_numbers(result):
    figure = plot(result)
    for panel in figure.axes:
        assert [line.get_label() for line in panel.lines] == list(result["data"])
        assert len({line.get_color() for line in panel.lines}) == len(panel.lines)
    held, step, full, prompt = ([line.get_ydata() for line in panel.lines] for panel in figure.axes)
    entry = result["data"]["attention, GQA"]
    point = entry["most"][-1]
    assert held[1][0] == entry["one"][0]["bytes"] / 1e9
    assert step[1][0] == min(times[0] for times in entry["one"][0]["milliseconds"].values())
    assert full[1][-1] == pytest.approx(1e3 * point["batch"] / min(t[0] for t in point["milliseconds"].values()))
    assert prompt[1][0] == np.median(entry["prefill"][0]["milliseconds"])
    plt.close(figure)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("name", configs(SMOKE))
def test_on_a_gpu_a_step_is_captured_and_fills_the_memory_that_it_is_given(name):
    machine.only_kernels()
    points = decoding.of_model(configs(SMOKE)[name], SMOKE, "cuda")
    ways = points["one"][0]["milliseconds"]
    assert ways.keys() == ({"no attention"} if name in RECURRENT else {"flash", "cudnn", "split"})
    for one, most in zip(points["one"], points["most"], strict=True):
        assert most["bytes"] == most["batch"] * one["bytes"]
        assert SMOKE.memory / 2 < most["bytes"] <= SMOKE.memory
