"""Layers on a GPU, by whatever kernels serve them there: outputs, steps and gradients of float64 on the CPU."""

import copy

import pytest
import torch
from layer_cases import LAYERS, build, inputs, stepwise

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
    pytest.mark.filterwarnings("ignore:.* has no GPU kernel:RuntimeWarning"),  # sizes here are small and odd
]


def close(ours, exact):
    assert ours.device.type == "cuda"
    assert (ours.cpu().double() - exact).abs().max() <= 1e-4 * exact.abs().max() + 1e-5


@pytest.mark.parametrize("name", LAYERS)
def test_the_gpu_gives_the_same(name):
    exact, x = build(name), inputs().requires_grad_()
    layer, on_gpu = copy.deepcopy(exact).float().cuda(), x.detach().float().cuda().requires_grad_()
    expected, _ = exact(x)
    y, _ = layer(on_gpu)
    close(y, expected)
    (expected * inputs(seed=3)).sum().backward()
    (y * inputs(seed=3).float().cuda()).sum().backward()
    close(on_gpu.grad, x.grad)
    for own, other in zip(layer.parameters(), exact.parameters(), strict=True):
        if other.grad is not None:
            close(own.grad, other.grad)
    with torch.no_grad():
        first, state = layer(on_gpu[:, :4])
        second, state = stepwise(layer, on_gpu[:, 4:6], state)
        third, _ = layer(on_gpu[:, 6:], state)
    close(torch.cat([first, second, third], 1), expected)
