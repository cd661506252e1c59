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


# Experts wait to learn who was chosen, and S4 for the verdict of a linear solver.
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own, where torch.compile begins
@pytest.mark.filterwarnings("ignore:TensorFloat32:UserWarning")  # advice of inductor's; float32 is meant
@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex:UserWarning")
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # Dynamo does it, of torch 2.11
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("name", [name for name in LAYERS if "experts" not in name and name != "s4"])
def test_a_training_step_can_be_recorded_as_a_graph(name, compiled):
    layer, x = build(name).float().cuda(), inputs().float().cuda()
    forward = torch.compile(layer, dynamic=False) if compiled else layer

    def step():
        layer.zero_grad(set_to_none=True)
        y, _ = forward(x)
        y.square().sum().backward()
        return y

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(2):  # kernels compile
            wanted = step().detach().clone()
        gradients = [None if p.grad is None else p.grad.clone() for p in layer.parameters()]
        layer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            found = step()
        found.detach().fill_(float("nan"))
        graph.replay()
    torch.cuda.synchronize()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    for parameter, gradient in zip(layer.parameters(), gradients, strict=True):
        if gradient is not None:
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-4)
