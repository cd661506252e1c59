"""`ssd`, `gated_delta_rule` and `causal_conv1d` beside the usual ways to write them and transformers' functions."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.case import Case, Contender, Tensors
from benchmarks.scans import GROWTH, LENGTHS
from ssm_kit.ops import causal_conv1d, gated_delta_rule, ssd

CHUNK = 64


def ssd_tensors(length: int, batch: int, heads: int, width: int = 64, states: int = 64) -> Tensors:
    """Step sizes and A as Mamba-2 starts with: Δ from 0.001 to 0.1, A from -16 to -1; one group."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, length, heads, width, generator=generator)
    B, C = torch.randn(2, batch, length, 1, states, generator=generator)
    delta = 10 ** (-3 + 2 * torch.rand(batch, length, heads, generator=generator))
    return {"x": x, "delta": delta, "A": -torch.linspace(1, 16, heads), "B": B, "C": C}


def ssd_autograd(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Chunks by einsum, all of them at once, and the gradients left to autograd; L a multiple of CHUNK, one group."""
    u, decay, B, C = (t.unflatten(1, (-1, CHUNK)) for t in (delta[..., None] * x, delta * A, B[:, :, 0], C[:, :, 0]))
    since = decay.transpose(2, 3).cumsum(-1)  # (B, M, H, Q)
    within = _segments(decay.transpose(2, 3)).exp()
    y = torch.einsum("bcin,bcjn,bchij,bcjhp->bcihp", C, B, within, u)
    states = torch.einsum("bcjn,bchj,bcjhp->bchpn", B, within[..., -1, :], u)
    across = _segments(F.pad(since[..., -1].transpose(1, 2), (1, 0))).exp()[..., :-1, :-1]
    starts = torch.einsum("bhcz,bzhpn->bchpn", across, F.pad(states, (0, 0, 0, 0, 0, 0, 1, 0))[:, :-1])
    y = y + torch.einsum("bcin,bchpn,bchi->bcihp", C, starts, since.exp())
    return y.flatten(1, 2)


def _segments(steps: Tensor) -> Tensor:
    """Entry [i, j]: the sum of steps j + 1 .. i; -inf above the diagonal."""
    length = steps.shape[-1]
    kept = torch.ones(length, length, dtype=torch.bool).tril()
    sums = steps[..., None].expand(*steps.shape, length).masked_fill(~kept.tril(-1), 0).cumsum(-2)
    return sums.masked_fill(~kept, -torch.inf)


def ssd_transformers(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    from transformers.models.mamba2.modeling_mamba2 import mamba2_chunk_scan

    return mamba2_chunk_scan(x, delta, A, B, C, chunk_size=CHUNK)


def delta_tensors(length: int, batch: int, heads: int, width: int = 64) -> Tensors:
    """Keys of length 1, decays that keep most, strengths between 0 and 1."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, batch, length, heads, width, generator=generator)
    g, beta = torch.randn(2, batch, length, heads, generator=generator)
    return {"q": F.normalize(q, dim=-1), "k": F.normalize(k, dim=-1), "v": v} | {
        "g": F.logsigmoid(g + 3), "beta": beta.sigmoid()}  # fmt: skip


def delta_transformers(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> Tensor:
    from transformers.models.qwen3_next.modeling_qwen3_next import torch_chunk_gated_delta_rule

    return torch_chunk_gated_delta_rule(q, k, v, g, beta)[0]


def conv_tensors(length: int, batch: int, channels: int) -> Tensors:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, length, channels, generator=generator)
    return {"x": x, "weight": torch.randn(channels, 4, generator=generator) / 2}


def conv_torch(x: Tensor, weight: Tensor) -> Tensor:
    """torch's depthwise convolution, channels before time, padded on both sides and cut."""
    y = F.conv1d(x.mT, weight[:, None], padding=weight.shape[1] - 1, groups=len(weight))
    return F.silu(y[..., : x.shape[1]].mT)


SSD = Contender("ssm_kit", lambda **t: ssd(**t, chunk_size=CHUNK))
GATED_DELTA = Contender("ssm_kit", gated_delta_rule)
CONV = Contender("ssm_kit", lambda **t: causal_conv1d(**t, activation="silu"))

CASES = [
    Case(
        "ssd",
        "B4 H4 P64 N64",
        lambda length: ssd_tensors(length, 4, 4),
        (
            SSD,
            Contender("einsum + autograd", ssd_autograd),
            Contender("transformers", ssd_transformers, repeats=5, needs="transformers"),
        ),
        lengths=LENGTHS,
    ),
    Case("ssd", "B1 H1 P64 N64", lambda n: ssd_tensors(n, 1, 1), (replace(SSD, repeats=7),), growth=GROWTH),
    Case(
        "gated_delta_rule",
        "B4 H4 K64 V64",
        lambda length: delta_tensors(length, 4, 4),
        (GATED_DELTA, Contender("transformers", delta_transformers, repeats=5, needs="transformers")),
        lengths=LENGTHS,
    ),
    Case(
        "gated_delta_rule",
        "B1 H1 K64 V64",
        lambda length: delta_tensors(length, 1, 1),
        (replace(GATED_DELTA, repeats=7),),
        growth=GROWTH,
    ),
    Case(
        "causal_conv1d",
        "B4 D256 W4, SiLU",
        lambda length: conv_tensors(length, 4, 256),
        (CONV, Contender("torch conv1d", conv_torch)),
        lengths=LENGTHS,
    ),
    Case("causal_conv1d", "B1 D64 W4, SiLU", lambda n: conv_tensors(n, 1, 64), (replace(CONV, repeats=7),),
         growth=GROWTH),
]  # fmt: skip
