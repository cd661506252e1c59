"""Time attention, the selective scan and SSD on one GPU, forward, from 1k to 128k tokens.

    python -m experiments.attention_against_scan --out ssm_kit/results/attention_against_scan.json

The three operators that mix the tokens of one layer of width 2048, without their projections, batch 1, bfloat16:
causal attention (16 heads of 128) through torch's cuDNN and FlashAttention backends; Mamba's selective scan
(4096 channels, N = 16) and Mamba-2's SSD (64 heads of 64, N = 128) through the public `mamba_ssm` package.
Each operator is first compared with a float64 definition on a short input: one that fails is not timed.
"""

from functools import partial

import torch
import torch.nn.functional as F
from mamba_ssm import __version__ as mamba_version
from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
from torch.nn.attention import SDPBackend, sdpa_kernel

from experiments.gpu_timing import GRAPH, milliseconds, relative_error
from experiments.machine import run

WIDTH, HEADS = 2048, 16
INNER, N_SCAN, SSD_HEADS, SSD_P, N_SSD = 4096, 16, 64, 64, 128
LENGTHS = [2**k for k in range(10, 18)]


def normal(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def attention(backend, q, k, v):
    with sdpa_kernel(backend):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def attention_inputs(length):
    return [normal(1, HEADS, length, WIDTH // HEADS) for _ in range(3)]


def attention_definition(q, k, v):
    q, k, v = (t.double() for t in (q, k, v))
    scores = q @ k.mT / q.shape[-1] ** 0.5
    mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
    return scores.masked_fill(~mask, -torch.inf).softmax(-1) @ v


def scan_inputs(length):
    x, delta = normal(1, INNER, length), F.softplus(normal(1, INNER, length) - 4)
    A = -torch.arange(1.0, N_SCAN + 1, device="cuda").repeat(INNER, 1)
    return x, delta, A, normal(1, N_SCAN, length), normal(1, N_SCAN, length)


def scan_definition(x, delta, A, B, C):
    x, delta, A, B, C = (t.double() for t in (x, delta, A, B, C))
    h, y = x.new_zeros(1, INNER, N_SCAN), []
    for t in range(x.shape[-1]):
        step = delta[..., t, None]
        h = torch.exp(step * A) * h + step * B[:, None, :, t] * x[..., t, None]
        y.append((h * C[:, None, :, t]).sum(-1))
    return torch.stack(y, -1)


def ssd(x, delta, A, B, C):
    return mamba_chunk_scan_combined(x, delta, A, B, C, chunk_size=256)


def ssd_inputs(length):
    delta = F.softplus(normal(1, length, SSD_HEADS) - 4)
    A = -torch.linspace(1.0, 16.0, SSD_HEADS, device="cuda")
    return normal(1, length, SSD_HEADS, SSD_P), delta, A, normal(1, length, 1, N_SSD), normal(1, length, 1, N_SSD)


def ssd_definition(x, delta, A, B, C):
    x, delta, A, B, C = (t.double() for t in (x, delta, A, B, C))
    h, y = x.new_zeros(1, SSD_HEADS, SSD_P, N_SSD), []
    for t in range(x.shape[1]):
        write = (delta[:, t, :, None] * x[:, t])[..., None] * B[:, t, :, None]
        h = torch.exp(delta[:, t] * A)[..., None, None] * h + write
        y.append((h * C[:, t, :, None]).sum(-1))
    return torch.stack(y, 1)


OPERATORS = {
    "attention_cudnn": (partial(attention, SDPBackend.CUDNN_ATTENTION), attention_inputs, attention_definition),
    "attention_flash": (partial(attention, SDPBackend.FLASH_ATTENTION), attention_inputs, attention_definition),
    "selective_scan": (selective_scan_fn, scan_inputs, scan_definition),
    "ssd": (ssd, ssd_inputs, ssd_definition),
}


def measure():
    data = {}
    for name, (operator, inputs, definition) in OPERATORS.items():
        tensors = inputs(300)
        error = relative_error(operator(*tensors), definition(*tensors))
        if not error < 0.01:
            raise SystemExit(f"{name}: relative error {error:.2e} against float64; not timed")
        times = []
        for length in LENGTHS:
            times.append(milliseconds(partial(operator, *inputs(length))))
            print(f"{name:18s} L {length:7d}  {times[-1][0]:9.3f} ms", flush=True)
        data[name] = {"relative_error": error, "milliseconds_median_p10_p90": times}
    settings = {
        "timing": GRAPH,
        "lengths": LENGTHS,
        "batch": 1,
        "dtype": "bfloat16",
        "width": WIDTH,
        "mamba_ssm": mamba_version,
        "attention": {"heads": HEADS, "head_dim": WIDTH // HEADS, "causal": True},
        "selective_scan": {"channels": INNER, "N": N_SCAN},
        "ssd": {"heads": SSD_HEADS, "head_dim": SSD_P, "N": N_SSD, "groups": 1, "chunk_size": 256},
    }
    return settings, data


if __name__ == "__main__":
    what = "Forward time of one layer's token mixing on one GPU against length: attention, selective scan, SSD"
    run("experiments/attention_against_scan.py", what, measure, device="cuda")
