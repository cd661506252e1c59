"""The public kernels beside ours, called as their authors mean it; a package that is not installed has no row.

How to install them is said in `benchmarks.gpu`.
"""

import torch
from torch import Tensor

from benchmarks.gpu_case import Contender, Tensors


def selective_scan() -> tuple[Contender, ...]:
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except ImportError:
        return ()

    def arrange(tensors: Tensors) -> Tensors:  # its CUDA kernel wants time last
        return {name: t.mT.contiguous() if t.ndim == 3 else t for name, t in tensors.items()}

    def run(x: Tensor, **others: Tensor) -> Tensor:
        return selective_scan_fn(x, **others, delta_softplus=True)

    return (Contender("mamba_ssm", run, arrange, lambda y: y.mT),)


def ssd() -> tuple[Contender, ...]:
    try:
        from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
    except ImportError:
        return ()

    def run(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor) -> Tensor:
        return mamba_chunk_scan_combined(
            x, delta, A, B, C, chunk_size=256, D=D, dt_bias=delta_bias, dt_softplus=True
        )  # fmt: skip

    return (Contender("mamba_ssm", run),)


def gated_delta_rule() -> tuple[Contender, ...]:
    """fla's chunked kernels. It refuses the backward pass on Hopper with Triton 3.4 to 3.7.0, where it knows it wrong.

    We switch the refusal off, as its own switch for other GPUs: our check then decides whether there is a time to show.
    """
    try:
        from fla.ops.common import chunk_o
        from fla.ops.gated_delta_rule import chunk_gated_delta_rule
    except ImportError:
        return ()
    chunk_o.IS_NVIDIA_HOPPER = False
    return (Contender("fla", chunk_gated_delta_rule, restore=lambda outputs: outputs[0]),)


def first_order_scan() -> tuple[Contender, ...]:
    try:
        from accelerated_scan.scalar import scan
    except ImportError:
        return ()

    def arrange(tensors: Tensors) -> Tensors:
        return {name: tensor.mT.contiguous() for name, tensor in tensors.items()}

    return (Contender("accelerated_scan", lambda a, b: scan(a, b), arrange, lambda h: h.mT),)


def causal_conv1d() -> tuple[Contender, ...]:
    try:
        from causal_conv1d import causal_conv1d_fn
    except ImportError:
        return ()

    def run(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return causal_conv1d_fn(x, weight, bias, activation="silu")

    # Its channel-last kernel: the same memory as ours, seen as (B, D, L).
    return (Contender("causal_conv1d", run, lambda t: t | {"x": t["x"].mT}, lambda y: y.mT),)


def selective_scan_step() -> tuple[Contender, ...]:
    try:
        from mamba_ssm.ops.triton.selective_state_update import selective_state_update
    except ImportError:
        return ()

    def run(
        x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, delta_bias: Tensor,
        state: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        y = selective_state_update(state, x, delta, A, B, C, D, z, delta_bias, dt_softplus=True)
        return y, state  # it writes the next state over the last

    return (Contender("mamba_ssm", run, _own_state),)


def ssd_step() -> tuple[Contender, ...]:
    try:
        from mamba_ssm.ops.triton.selective_state_update import selective_state_update
    except ImportError:
        return ()

    def arrange(tensors: Tensors) -> Tensors:  # a head's numbers, shown for all its P × N entries
        batch, heads, P = tensors["x"].shape
        N = tensors["B"].shape[-1]
        shown = {"delta": tensors["delta"][..., None].expand(batch, heads, P)}
        shown |= {"A": tensors["A"][:, None, None].expand(heads, P, N)}
        shown |= {name: tensors[name][:, None].expand(heads, P) for name in ("D", "delta_bias")}
        return _own_state(tensors) | shown

    def run(
        x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        return selective_state_update(state, x, delta, A, B, C, D, dt_bias=delta_bias, dt_softplus=True), state

    return (Contender("mamba_ssm", run, arrange),)


def gated_delta_rule_step() -> tuple[Contender, ...]:
    try:
        from fla.ops.gated_delta_rule import fused_recurrent_gated_delta_rule
    except ImportError:
        return ()

    def arrange(tensors: Tensors) -> Tensors:
        return {name: t if name == "state" else t[:, None] for name, t in tensors.items()}

    def run(state: Tensor, **others: Tensor) -> tuple[Tensor, Tensor]:
        return fused_recurrent_gated_delta_rule(**others, initial_state=state, output_final_state=True)

    return (Contender("fla", run, arrange, lambda outputs: (outputs[0][:, 0], outputs[1])),)


def _own_state(tensors: Tensors) -> Tensors:
    return tensors | {"state": tensors["state"].clone(memory_format=torch.contiguous_format)}
