"""The rows of `benchmarks.gpu`: every operator at its sizes, our call beside the public kernels', and the work in it.

The work is the least that any kernel must do: each input read and each output written once; a backward pass reads the
inputs and the output's gradient and writes the inputs' gradients. SSD counts the matrix products of chunks of 128, the
gated delta rule the three products of each step with its state.
"""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import gpu_peers as peers
from benchmarks.gpu_case import Case, Contender, Tensors, Work
from ssm_kit import ops

BF16, FP32 = torch.bfloat16, torch.float32


@functools.cache
def generator() -> torch.Generator:
    """One of our own: torch's takes part in the capture of CUDA graphs, and a failed capture leaves it unusable."""
    return torch.Generator("cuda").manual_seed(0)


def normal(*shape: int, dtype: torch.dtype = BF16) -> Tensor:
    return torch.randn(shape, generator=generator(), device="cuda").to(dtype)


def uniform(*shape: int) -> Tensor:
    return torch.rand(shape, generator=generator(), device="cuda")


def decays(*shape: int) -> Tensor:
    """-1 .. -16, as Mamba begins."""
    return -torch.linspace(1, 16, shape[-1], device="cuda").expand(shape).contiguous()


def biases(size: int) -> Tensor:
    """Inverse softplus of step sizes from 0.001 to 0.1, as Mamba begins."""
    step = torch.logspace(-3, -1, size, device="cuda")
    return step + torch.log(-torch.expm1(-step))


def selective(batch: int, length: int, *, D: int = 4096, N: int = 16, step: bool = False) -> Tensors:
    time = () if step else (length,)
    tensors = {name: normal(batch, *time, D) for name in ("x", "delta", "z")}
    tensors |= {name: normal(batch, *time, N) for name in ("B", "C")}
    return tensors | {"A": decays(D, N), "D": torch.ones(D, device="cuda"), "delta_bias": biases(D)}


def ssd(batch: int, length: int, *, H: int = 64, P: int = 64, N: int = 128, step: bool = False) -> Tensors:
    time = () if step else (length,)
    tensors = {"x": normal(batch, *time, H, P), "delta": normal(batch, *time, H)}
    tensors |= {name: normal(batch, *time, 1, N) for name in ("B", "C")}
    return tensors | {"A": decays(H), "D": torch.ones(H, device="cuda"), "delta_bias": biases(H)}


def gated_delta(batch: int, length: int, *, H: int = 16, K: int = 128, V: int = 128, step: bool = False) -> Tensors:
    time = () if step else (length,)
    q, k = (F.normalize(normal(batch, *time, H, K, dtype=FP32), dim=-1).bfloat16() for _ in range(2))
    g, beta = -0.1 * uniform(batch, *time, H), uniform(batch, *time, H).bfloat16()
    return {"q": q, "k": k, "v": normal(batch, *time, H, V), "g": g, "beta": beta}


def first_order(batch: int, length: int, *, D: int = 4096, dtype: torch.dtype) -> Tensors:
    return {"a": uniform(batch, length, D).to(dtype), "b": normal(batch, length, D, dtype=dtype)}


def convolution(batch: int, length: int, *, D: int = 4096, W: int = 4) -> Tensors:
    return {"x": normal(batch, length, D), "weight": normal(D, W), "bias": normal(D)}


def _ours(operator: Callable[..., Any], **options: Any) -> Contender:
    return Contender("ssm_kit", partial(operator, **options, backend="cuda"))


def _case_selective(batch: int, length: int) -> Case:
    D, N = 4096, 16
    n, groups = batch * length * D, 2 * batch * length * N
    special = (N + 4) * n  # a decay for each state; softplus and SiLU take two each
    return Case(
        "selective_scan", f"B{batch} L{length} D{D} N{N}, z, D, softplus, bias",
        lambda small: selective(2, 333) if small else selective(batch, length),
        partial(ops.selective_scan, delta_softplus=True, backend="torch"),
        (_ours(ops.selective_scan, delta_softplus=True), *peers.selective_scan()),
        Work(2 * (4 * n + groups), special=special), Work(2 * (7 * n + 2 * groups), special=special),
    )  # fmt: skip


def _case_ssd(batch: int, length: int) -> Case:
    H, P, N, Q = 64, 64, 128, 128
    n, groups = batch * length * H * P, 2 * batch * length * N
    inside, states = 2 * Q * (P + N / H), 2 * P * N  # FLOPs for a head and step: within chunks of Q; state, in or out
    heads = batch * length * H
    return Case(
        "ssd", f"B{batch} L{length} H{H} P{P} N{N} G1",
        lambda small: ssd(2, 333) if small else ssd(batch, length),
        partial(ops.ssd, delta_softplus=True, backend="torch"),
        (_ours(ops.ssd, delta_softplus=True), *peers.ssd()),
        Work(2 * (2 * n + groups + heads), heads * (inside + 2 * states)),
        Work(2 * (3 * n + 2 * groups + 2 * heads), heads * (3 * inside + 5 * states) - heads * 2 * Q * P),
    )  # fmt: skip


def _case_gated_delta(batch: int, length: int) -> Case:
    H, K, V = 16, 128, 128
    n, gates = batch * length * H * K, 6 * batch * length * H
    heads = batch * length * H
    return Case(
        "gated_delta_rule", f"B{batch} L{length} H{H} K{K} V{V}",
        lambda small: gated_delta(2, 333) if small else gated_delta(batch, length),
        partial(ops.gated_delta_rule, backend="torch"),
        (_ours(ops.gated_delta_rule), *peers.gated_delta_rule()),
        Work(2 * 4 * n + gates, heads * 6 * K * V), Work(2 * 7 * n + 2 * gates, heads * 12 * K * V),
    )  # fmt: skip


def _case_first_order(dtype: torch.dtype) -> Case:
    n = 8 * 4096 * 4096
    return Case(
        "first_order_scan", "32768 sequences L4096",
        lambda small: first_order(2, 512, dtype=dtype) if small else first_order(8, 4096, dtype=dtype),
        partial(ops.first_order_scan, backend="torch"),
        (_ours(ops.first_order_scan), *peers.first_order_scan()),
        Work(3 * n * dtype.itemsize), Work(5 * n * dtype.itemsize), dtype,
    )  # fmt: skip


def _case_convolution() -> Case:
    n = 8 * 4096 * 4096
    return Case(
        "causal_conv1d", "B8 L4096 D4096 W4, SiLU",
        lambda small: convolution(2, 333) if small else convolution(8, 4096),
        partial(ops.causal_conv1d, activation="silu", backend="torch"),
        (_ours(ops.causal_conv1d, activation="silu"), *peers.causal_conv1d()),
        Work(2 * 2 * n, special=2 * n), Work(2 * 3 * n, special=2 * n),
    )  # fmt: skip


def _case_step(
    operator: str, shape: str, make: Callable[..., Tensors], state: tuple[int, ...], step: Callable[..., Any],
    others: tuple[Contender, ...],
) -> Case:  # fmt: skip
    def tensors(small: bool) -> Tensors:
        batch = 3 if small else 256
        return make(batch, 1, step=True) | {"state": normal(batch, *state, dtype=FP32)}

    size = 256 * torch.Size(state).numel()
    return Case(operator, f"batch 256 {shape}, float32 state", tensors, step, (Contender("ssm_kit", step), *others),
                Work(2 * 4 * size), None)  # fmt: skip


def _steps() -> list[Case]:
    mamba = partial(ops.selective_scan_step, delta_softplus=True)
    mamba2 = partial(ops.ssd_step, delta_softplus=True)
    delta = ops.gated_delta_rule_step
    return [
        _case_step("selective_scan_step", "D4096 N16", selective, (4096, 16), mamba, peers.selective_scan_step()),
        _case_step("ssd_step", "H64 P64 N128", ssd, (64, 64, 128), mamba2, peers.ssd_step()),
        _case_step(
            "gated_delta_rule_step", "H16 K128 V128", gated_delta, (16, 128, 128), delta, peers.gated_delta_rule_step()
        ),
    ]


PARTS: dict[str, Callable[[], list[Case]]] = {
    "first_order_scan": lambda: [_case_first_order(dtype) for dtype in (FP32, BF16)],
    "causal_conv1d": lambda: [_case_convolution()],
    "steps": _steps,
    "gated_delta_rule": lambda: [_case_gated_delta(*size) for size in ((8, 4096), (1, 65536))],
    "selective_scan": lambda: [_case_selective(*size) for size in ((8, 2048), (8, 8192), (1, 65536))],
    "ssd": lambda: [_case_ssd(*size) for size in ((8, 4096), (1, 65536))],
}
"""Rows that are measured together, in a process of their own."""
