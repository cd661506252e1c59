"""One small layer of every kind, in float64, where equal means equal to 1e-10."""

import torch

from ssm_kit.layers import (
    MLP,
    RGLRU,
    S4,
    S4D,
    Attention,
    GatedDeltaNet,
    GatedS4D,
    LinearAttention,
    Mamba,
    Mamba2,
    MoE,
    SharedAttention,
)

D_MODEL, BATCH, LENGTH = 12, 2, 9
QWEN = {"rope": 1e4, "rotary_fraction": 0.5, "qk_norm": True, "output_gate": True}
NEMOTRON = {"kind": "relu2", "score": "sigmoid", "normalize": True, "scale": 2.5, "latent": 6, "shared_d_ff": 10}

LAYERS = {
    "mamba": lambda: Mamba(D_MODEL, 4),
    "mamba, no bias": lambda: Mamba(D_MODEL, 3, 2, expand=1, conv_bias=False),
    "mamba, width 1": lambda: Mamba(D_MODEL, 3, 1, bias=True),
    "falcon mamba": lambda: Mamba(D_MODEL, 4, bcdt_norm="weightless"),
    "jamba's mamba": lambda: Mamba(D_MODEL, 4, dt_rank=3, bcdt_norm="learned"),
    "zamba's mamba": lambda: Mamba(D_MODEL, 4, dt_rank=3, num_heads=2),
    "mamba2": lambda: Mamba2(D_MODEL, 4, headdim=6, chunk_size=4),
    "nemotron's mamba2": lambda: Mamba2(D_MODEL, 4, 3, headdim=4, nheads=8, ngroups=2, dt_limit=(0.02, 0.05)),
    "gated deltanet": lambda: GatedDeltaNet(D_MODEL, 2, 4, 4, 3),
    "rg-lru": lambda: RGLRU(D_MODEL, 16, 4),
    "s4": lambda: S4(D_MODEL, 6),
    "s4d": lambda: S4D(D_MODEL, 6),
    "s4d-lin": lambda: S4D(D_MODEL, 4, "lin"),
    "gated s4d": lambda: GatedS4D(D_MODEL, 6),
    "s4d-real": lambda: S4D(D_MODEL, 3, "real"),
    "linear attention": lambda: LinearAttention(D_MODEL, 3),
    "linear attention, hedgehog": lambda: LinearAttention(D_MODEL, 3, feature_map="hedgehog"),
    "attention": lambda: Attention(D_MODEL, 3),
    "grouped attention": lambda: Attention(D_MODEL, 4, 2, 6, rope=1e4, bias=True),
    "gated attention": lambda: Attention(D_MODEL, 4, 2, 4, **QWEN),
    "window of 4": lambda: Attention(D_MODEL, 4, 1, 4, rope=1e4, rotary_fraction=0.5, window=4, out_bias=True),
    "window of 1": lambda: Attention(D_MODEL, 3, window=1),
    "shared attention": lambda: Bound(SharedAttention(D_MODEL, 4, 10, num_calls=2)),
    "zamba2's attention": lambda: Bound(SharedAttention(D_MODEL, 2, 10, num_calls=2, adapter_rank=3, rope=1e4)),
    "swiglu": lambda: MLP(D_MODEL, 10),
    "relu2": lambda: MLP(D_MODEL, 10, "relu2", bias=True),
    "jamba's experts": lambda: MoE(D_MODEL, 10, 4, 2),
    "qwen's experts": lambda: MoE(D_MODEL, 10, 4, 2, normalize=True, shared_d_ff=8, shared_gate=True),
    "nemotron's experts": lambda: MoE(D_MODEL, 10, 4, 2, **NEMOTRON),
}


class Bound(torch.nn.Module):
    """The second call of a shared block, with embeddings that are a fixed function of x: a layer like the others."""

    def __init__(self, block):
        super().__init__()
        self.block, self.d_model, self.init_state = block, block.d_model, block.init_state

    def forward(self, x, state=None):
        return self.block(x, state, embeddings=x.roll(1, dims=-1), call=1)

    def step(self, x, state):
        return self.block.step(x, state, embeddings=x.roll(1, dims=-1), call=1)


def build(name):
    """The layer, with biases and gates that are not at their neutral initial values."""
    torch.manual_seed(len(name))
    layer = LAYERS[name]().double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
        for buffer in layer.buffers():
            buffer += torch.randn_like(buffer)
    return layer


def inputs(seed=0, length=LENGTH):
    return torch.randn(BATCH, length, D_MODEL, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def stepwise(layer, x, state=None):
    """The layer, one token after another."""
    outputs = []
    for token in x.unbind(1):
        y, state = layer.step(token, state)
        outputs.append(y)
    return torch.stack(outputs, 1), state


def tensors(state):
    return [] if state is None else list(state)
