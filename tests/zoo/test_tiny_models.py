"""For every architecture that the layers can build: the tiny model builds, learns, and decodes as it reads."""

import pytest
import torch
import torch.nn.functional as F

from ssm_kit import zoo
from ssm_kit.models import LanguageModel

TINY = {  # id: the tiny model's pattern
    "mamba-2.8b": "MM",
    "mamba2-2.7b": "MM",
    "falcon-mamba-7b": "MM",
    "jamba-v0.1": "M-MEM-ME*-",
    "zamba-7b": "MMZMMMMZ",
    "recurrentgemma-2b": "R-R-L-",
    "mamba2-hybrid-8b": "M-M-M--M-M*-",
    "nemotron-h-8b": "M-M-M-M*-",
    "nemotron-nano-12b-v2": "M-M-M-M*-",
    "nemotron-nano-9b-v2": "M-M-M-MM-M-M-M*-",
    "nemotron-3-nano-30b-a3b": "MEMEM*E",
    "nemotron-3-super-120b-a12b": "MEMEMEM*E",
    "qwen3-next-80b-a3b": "GEGEGE*E",
    "qwen3.6-27b": "G-G-G-*-",
    "mixtral-8x7b": "*E*E",
    "llama-3-8b": "*-*-",
}
TEXT = b"the state remembers what the window forgets; "


def build(id: str) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(zoo.get(id).tiny())


@pytest.mark.parametrize("id", TINY)
def test_builds_learns_and_decodes(id):
    model = build(id)
    assert "".join(model.config.pattern) == TINY[id]
    ids = torch.tensor([list(TEXT[:24]), list(TEXT[20:44])])
    losses = []
    for _ in range(5):
        model.zero_grad()
        logits, _ = model(ids[:, :-1])
        losses.append(F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()))
        losses[-1].backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        descend(model)
    assert losses[-1] < 0.9 * losses[0]
    assert_decodes(model, ids)


@torch.no_grad()
def descend(model: LanguageModel) -> None:
    """One step against the sign of the gradient: what Adam's first step is."""
    for parameter in model.parameters():
        parameter.sub_(0.005 * parameter.grad.sign())


@torch.no_grad()
def assert_decodes(model: LanguageModel, ids: torch.Tensor) -> None:
    """A prefill of 11 tokens, more than the tiny window of 8, then steps: every position equals the full forward."""
    whole, _ = model(ids)
    logits, cache = model(ids[:, :11])
    rows = [*logits.unbind(1)]
    for token in ids[:, 11:].unbind(1):
        logits, cache = model.step(token, cache)
        rows.append(logits)
    torch.testing.assert_close(torch.stack(rows, 1), whole, rtol=1e-4, atol=1e-4 * whole.abs().max().item())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.filterwarnings("ignore:.* has no GPU kernel:RuntimeWarning")  # sizes here are small and odd
@pytest.mark.parametrize("id", TINY)
@torch.no_grad()
def test_a_gpu_gives_the_same(id):
    model, ids = build(id), torch.tensor([list(TEXT[:24]), list(TEXT[20:44])])
    expected, _ = model(ids)
    logits, _ = model.cuda()(ids.cuda())
    torch.testing.assert_close(logits.cpu(), expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())
    assert_decodes(model, ids.cuda())


@pytest.mark.parametrize("id", sorted(set(zoo.ids()) - set(TINY)))
def test_every_card_builds_or_says_why_not(id):
    card = zoo.get(id)
    if card.pattern() is None or any(block.missing for block in card.blocks.values()):
        with pytest.raises(ValueError, match="card must have"):
            card.tiny()
    else:
        assert set(build(id).config.pattern) == set(card.pattern())


def test_sizes_of_one_family_share_an_architecture():
    for small, large in [("recurrentgemma-2b", "recurrentgemma-9b"), ("nemotron-h-8b", "nemotron-h-56b")]:
        assert zoo.get(small).tiny() == zoo.get(large).tiny()


def test_what_makes_an_architecture_is_kept():
    attention = {id: zoo.get(id).tiny().blocks for id in TINY}
    assert attention["jamba-v0.1"]["*"].get("rope") is None
    assert attention["jamba-v0.1"]["M"]["bcdt_norm"] == "learned"
    assert attention["falcon-mamba-7b"]["M"]["bcdt_norm"] == "weightless"
    assert attention["recurrentgemma-2b"]["L"]["num_kv_heads"] == 1
    assert attention["recurrentgemma-2b"]["L"]["window"] == 8
    assert attention["qwen3-next-80b-a3b"]["*"]["output_gate"] is True
    assert (
        attention["qwen3-next-80b-a3b"]["G"]["num_v_heads"] == 2 * attention["qwen3-next-80b-a3b"]["G"]["num_k_heads"]
    )
    assert attention["nemotron-3-super-120b-a12b"]["E"]["latent"] < 32
    assert "latent" not in attention["nemotron-3-nano-30b-a3b"]["E"]
    assert attention["nemotron-h-8b"]["-"]["kind"] == "relu2"


def test_zamba_shares_its_weights_and_not_its_caches():
    model = build("zamba-7b")
    assert len(model.shared) == 1
    _, cache = model(torch.zeros(1, 5, dtype=torch.int64))
    card = zoo.get("zamba-7b")
    calls = model.config.pattern.count("Z")
    assert calls == 2 < card.count("attention")
    assert cache.kv_bytes == calls * 5 * 2 * (2 * 32) * 4  # calls · tokens · (K and V) · width of joint input · bytes


def test_two_shared_blocks_take_turns():
    model = build("zamba2-2.7b")
    assert "".join(model.config.pattern) == "M" + "MMMMMZMMMMMY" * 2
    assert set(model.shared) == {"Z", "Y"}
    assert_decodes(model, torch.tensor([list(TEXT[:16])]))


@pytest.mark.parametrize(
    ("id", "message"),
    [
        ("granite-4.0-h-small", "card must have a known order of blocks"),
        ("kimi-linear-48b-a3b", "has Kimi Delta Attention, latent attention"),
        ("olmo-hybrid-7b", "has Gated DeltaNet with β up to 2"),
    ],
)
def test_a_card_beyond_the_layers_is_refused(id, message):
    with pytest.raises(ValueError, match=message):
        zoo.get(id).tiny()
