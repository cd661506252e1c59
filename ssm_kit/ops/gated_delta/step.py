"""One step of linear attention and the delta rules, for decoding: the state comes in, the next one goes out."""

import torch
from torch import Tensor

from ssm_kit.ops._check import require_shape
from ssm_kit.ops._dispatch import full_precision
from ssm_kit.ops.gated_delta import reference
from ssm_kit.ops.gated_delta._arguments import check, prepare, require_given


def gated_delta_rule_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    state: Tensor,
    g: Tensor,
    beta: Tensor,
    scale: float | None = None,
    qk_l2norm: bool = False,
) -> tuple[Tensor, Tensor]:
    """One step of `gated_delta_rule`; the state that comes in is left as it is.

    Args:
        q, k: (B, H, K).
        v: (B, HV, V), HV a multiple of H.
        state: (B, HV, K, V), the memory before the step.
        g: (B, HV) logarithm of the decay.
        beta: (B, HV) strength of the correction.
        scale: factor of the output; None for K^-1/2.
        qk_l2norm: divide the query and the key by their length first.

    On a GPU, where no gradient is asked for, one kernel without synchronisation: fit for CUDA graphs.

    Returns:
        o (B, HV, V) in the dtype of q, and the state after the step in the common dtype, at least float32.

    Raises:
        ValueError: as `gated_delta_rule`.
    """
    require_given(g=g, beta=beta, state=state)
    return _step(q, k, v, g, beta, state, scale, qk_l2norm)


def delta_rule_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    state: Tensor,
    beta: Tensor,
    scale: float | None = None,
    qk_l2norm: bool = False,
) -> tuple[Tensor, Tensor]:
    """One step of `delta_rule`: `gated_delta_rule_step` without decay, with its arguments, results and errors."""
    require_given(beta=beta, state=state)
    return _step(q, k, v, None, beta, state, scale, qk_l2norm)


def linear_attention_step(
    q: Tensor, k: Tensor, v: Tensor, *, state: Tensor, g: Tensor | None = None, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """One step of `linear_attention`: `gated_delta_rule_step` without correction, with its results and errors."""
    require_given(state=state)
    return _step(q, k, v, g, None, state, scale, False)


def _step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    beta: Tensor | None,
    state: Tensor,
    scale: float | None,
    qk_l2norm: bool,
) -> tuple[Tensor, Tensor]:
    """One step of the three operators: no decay without g, no correction without beta."""
    form = check("B", q, k, v, g, beta, state, scale)
    require_shape("state", state, (q.shape[0], *form.memory), "(B, HV, K, V)")
    given = [x for x in (q, k, v, g, beta, state) if x is not None]
    if q.is_cuda and not (torch.is_grad_enabled() and any(x.requires_grad for x in given)) and _served(given):
        from ssm_kit.ops.gated_delta import cuda

        return cuda.step(q, k, v, g, beta, state, form.scale, qk_l2norm)
    with full_precision(q.device):
        tensors = prepare(form, q, k, v, g, beta, qk_l2norm)
        o, state = reference.step(*tensors, state.to(form.dtype), form.scale)
    return o.to(q.dtype), state


def _served(given: list[Tensor]) -> bool:
    """Whether the GPU kernel takes these tensors; without Triton it takes none."""
    try:
        from ssm_kit.ops.gated_delta import cuda
    except ModuleNotFoundError:
        return False
    return cuda.unsupported(*given, width=given[0].shape[-1]) is None
