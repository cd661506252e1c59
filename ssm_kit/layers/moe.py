"""Mixture of experts: every token goes through the few MLPs that a router picks for it; none is ever dropped."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssm_kit.layers._check import require_positive
from ssm_kit.layers._state import Layer, wide
from ssm_kit.layers.mlp import ACTIVATIONS, MLP
from ssm_kit.ops._check import require_choice


class MoE(Layer):
    """Σ over the top k experts of weight · expert(x), plus the shared expert.

    The public hybrids differ in how they weigh. Jamba: softmax over all experts, the chosen weights as they are.
    Qwen3-Next: the same, then scaled to sum 1, and a shared expert behind a sigmoid gate. Nemotron 3: a sigmoid per
    expert, a bias that takes part in the choice but not in the weights (arXiv 2408.15664), scaled to sum 1 and by a
    factor, a shared expert without a gate, and in Nemotron 3 Super experts of a smaller width (`latent`).

    Parameters are named as in Qwen3-Next; Jamba's `gate` is called router there, Nemotron's shared_expert
    shared_experts. The weights of all experts lie in one tensor, gate_up_proj (E, 2 d_ff, d) or, without a gate,
    up_proj (E, d_ff, d), and down_proj (E, d, d_ff). It remembers nothing: its state is None.

    Args:
        d_model: width of input and output.
        d_ff: width inside an expert.
        num_experts: E.
        top_k: experts per token.
        kind: of the experts, as in `MLP`.
        score: "softmax" over all experts, or "sigmoid" of each by itself, with the bias of choice.
        normalize: scale the chosen weights to sum 1.
        scale: factor of the chosen weights.
        shared_d_ff: width inside the shared expert; None for no such expert.
        shared_gate: multiply the shared expert by the sigmoid of one number computed from x.
        latent: width of input and output of the routed experts, with projections around them; None for d_model.

    Raises:
        ValueError: sizes below 1, top_k above num_experts, an unknown kind or score, a gate without shared expert.
    """

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        num_experts: int,
        top_k: int,
        *,
        kind: str = "swiglu",
        score: str = "softmax",
        normalize: bool = False,
        scale: float = 1.0,
        shared_d_ff: int | None = None,
        shared_gate: bool = False,
        latent: int | None = None,
    ) -> None:
        super().__init__()
        require_positive(d_model=d_model, shared_d_ff=shared_d_ff, latent=latent)
        self.d_model = d_model
        self.gate = Router(d_model, num_experts, top_k, score=score, normalize=normalize, scale=scale)
        self.experts = Experts(latent or d_model, d_ff, num_experts, kind)
        if shared_gate and shared_d_ff is None:
            raise ValueError("shared_gate must be False where shared_d_ff is None; got True")
        self.shared_expert = None if shared_d_ff is None else MLP(d_model, shared_d_ff, kind)
        self.shared_expert_gate = nn.Linear(d_model, 1, bias=False) if shared_gate else None
        self.fc1_latent_proj = None if latent is None else nn.Linear(d_model, latent, bias=False)
        self.fc2_latent_proj = None if latent is None else nn.Linear(latent, d_model, bias=False)

    def _advance(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        tokens = x.reshape(-1, self.d_model)
        weights, chosen = self.gate(tokens)
        narrow = tokens if self.fc1_latent_proj is None else self.fc1_latent_proj(tokens)
        y = self.experts(narrow, weights, chosen)
        y = y if self.fc2_latent_proj is None else self.fc2_latent_proj(y)
        return (y + self._shared(tokens)).reshape(x.shape), state

    def _shared(self, tokens: Tensor) -> Tensor | float:
        if self.shared_expert is None:
            return 0.0
        y, _ = self.shared_expert.step(tokens, None)
        return y if self.shared_expert_gate is None else y * torch.sigmoid(self.shared_expert_gate(tokens))


class Router(nn.Module):
    """Which experts a token goes to, and with which weights; see `MoE` for the arguments and errors."""

    e_score_correction_bias: Tensor

    def __init__(
        self, d_model: int, num_experts: int, top_k: int, *, score: str, normalize: bool, scale: float
    ) -> None:
        super().__init__()
        require_positive(num_experts=num_experts, top_k=top_k)
        require_choice("score", score, ("softmax", "sigmoid"))
        if top_k > num_experts:
            raise ValueError(f"top_k must be at most num_experts = {num_experts}; got {top_k}")
        self.top_k, self.score, self.normalize, self.scale = top_k, score, normalize, scale
        self.weight = nn.Parameter(torch.empty(num_experts, d_model).uniform_(-(d_model**-0.5), d_model**-0.5))
        if score == "sigmoid":  # moved by hand towards even use of the experts, never by gradients
            self.register_buffer("e_score_correction_bias", torch.zeros(num_experts))

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (T, k) in at least float32, and experts (T, k), of tokens (T, d_model)."""
        dtype = wide(tokens.dtype)
        logits = F.linear(tokens.to(dtype), self.weight.to(dtype))
        if self.score == "softmax":
            weights, chosen = logits.softmax(dim=-1).topk(self.top_k)
        else:
            scores = logits.sigmoid()
            chosen = (scores + self.e_score_correction_bias).topk(self.top_k).indices
            weights = scores.gather(1, chosen)
        if self.normalize:
            weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)  # sigmoids may all be 0
        return weights * self.scale, chosen


class Experts(nn.Module):
    """All experts of a layer; see `MoE` for the arguments and errors."""

    up_proj: nn.Parameter
    gate_up_proj: nn.Parameter

    def __init__(self, d_model: int, d_ff: int, num_experts: int, kind: str) -> None:
        super().__init__()
        require_positive(d_ff=d_ff)
        require_choice("kind", kind, tuple(ACTIVATIONS))
        self.kind = kind
        into = torch.empty(num_experts, d_ff if kind == "relu2" else 2 * d_ff, d_model)
        weight = nn.Parameter(into.uniform_(-(d_model**-0.5), d_model**-0.5))
        self.register_parameter("up_proj" if kind == "relu2" else "gate_up_proj", weight)
        self.down_proj = nn.Parameter(torch.empty(num_experts, d_model, d_ff).uniform_(-(d_ff**-0.5), d_ff**-0.5))

    def forward(self, tokens: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """Σ_k weight_k · expert_k(token), (T, d), of tokens (T, d) with weights and chosen experts (T, k)."""
        top_k = chosen.shape[1]
        order = chosen.flatten().argsort(stable=True)  # all pairs of token and expert, by expert
        counts = torch.bincount(chosen.flatten(), minlength=len(self.down_proj)).tolist()
        parts = tokens[order // top_k].split(counts)
        outputs = torch.cat([self._expert(expert, part) for expert, part in enumerate(parts) if len(part)])
        by_token = outputs[order.argsort()].unflatten(0, (-1, top_k))  # (T, k, d)
        return (by_token * weights[..., None].to(by_token.dtype)).sum(dim=1)

    def _expert(self, index: int, x: Tensor) -> Tensor:
        activation = ACTIVATIONS[self.kind]
        if self.kind == "relu2":
            return F.linear(activation(F.linear(x, self.up_proj[index])), self.down_proj[index])
        gate, up = F.linear(x, self.gate_up_proj[index]).chunk(2, dim=-1)
        return F.linear(activation(gate) * up, self.down_proj[index])
