"""Models on a GPU say what they say on the CPU."""

import pytest
import torch
from small_models import build, random_ids

from ssm_kit.models import generate, load, save

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
    pytest.mark.filterwarnings("ignore:.* has no GPU kernel:RuntimeWarning"),  # sizes here are small and odd
]


@torch.no_grad()
@pytest.mark.parametrize("pattern", ["S-M-", "*-L-", "4D", "KERE", "G-", "SZMZ"])
def test_logits_and_cache(pattern):
    here = build(pattern)
    ids = random_ids(2, 40)
    expected, there = here(ids)[0], build(pattern).cuda()
    logits, cache = there(ids.cuda())
    assert logits.is_cuda
    assert cache.nbytes == here(ids)[1].nbytes
    tolerance = 1e-3 * expected.abs().max()
    assert (logits.cpu() - expected).abs().max() < tolerance
    step, _ = there.step(ids[:, 0].cuda(), cache)
    assert (step.cpu() - here.step(ids[:, 0], here(ids)[1])[0]).abs().max() < tolerance


def test_generation():
    model, ids = build("S-M-*-L-").cuda(), random_ids(3, 7).cuda()
    greedy = generate(model, ids, 12)
    assert greedy.is_cuda
    with torch.no_grad():
        first, second = model(greedy[:, :-1])[0][:, 6:].topk(2).values.unbind(-1)
        chosen = model(greedy[:, :-1])[0][:, 6:].gather(-1, greedy[:, 7:, None])[..., 0]
    assert (first - chosen).max() < 1e-3 * (first - second).abs().max()  # of two that are alike either may be taken
    texts = [
        generate(model, ids, 12, temperature=1.0, top_p=0.9, generator=torch.Generator("cuda").manual_seed(5), stop=[3])
        for _ in range(2)
    ]
    assert torch.equal(*texts)


def test_through_a_file(tmp_path):
    model = build("M-*-").cuda()
    save(model, tmp_path)
    ids = random_ids(2, 9).cuda()
    with torch.no_grad():
        assert torch.equal(load(tmp_path, device="cuda")(ids)[0], model(ids)[0])
