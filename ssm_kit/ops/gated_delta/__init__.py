"""Linear attention and the delta rules: a matrix memory that is written under keys and read under queries."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from ssm_kit.ops._check import require_shape
from ssm_kit.ops._dispatch import full_precision, resolve
from ssm_kit.ops._varlen import run_packed, sequence_bounds, sequence_count
from ssm_kit.ops.gated_delta import chunked, reference
from ssm_kit.ops.gated_delta._arguments import check, prepare, require_given
from ssm_kit.ops.gated_delta.step import delta_rule_step, gated_delta_rule_step, linear_attention_step

__all__ = [
    "delta_rule",
    "delta_rule_step",
    "gated_delta_rule",
    "gated_delta_rule_step",
    "linear_attention",
    "linear_attention_step",
]


def gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    g: Tensor,
    beta: Tensor,
    scale: float | None = None,
    qk_l2norm: bool = False,
    initial_state: Tensor | None = None,
    return_final_state: bool = False,
    cu_seqlens: Tensor | None = None,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """S ← α_t S, then S ← S + k_t (β_t (v_t − Sᵀ k_t))ᵀ, o_t = scale · Sᵀ q_t, with α_t = exp(g_t).

    The memory fades first; what the faded memory holds under k_t is then corrected towards v_t: all of it at β = 1,
    nothing at β = 0 (Gated DeltaNet, arXiv 2412.06464, eq. 10; the paper's S is the transpose of this one).

    Args:
        q, k: (B, L, H, K) queries and keys, real floating, L >= 1. The rule is stable for keys of length <= 1 and
            0 <= beta <= 2.
        v: (B, L, HV, V) values, HV a multiple of H: query and key head h serves the value heads from h · HV / H on.
        g: (B, L, HV) logarithm of the decay α, <= 0 for a memory that does not grow; −∞ wipes it out.
        beta: (B, L, HV) strength of the correction.
        scale: factor of the outputs; None for K^-1/2.
        qk_l2norm: divide queries and keys by their length first, x / sqrt(|x|² + 1e-6).
        initial_state: S_0 (B, HV, K, V), with `cu_seqlens` (S, HV, K, V); None for zeros.
        return_final_state: return the state after the last step too.
        cu_seqlens: (S + 1,) int32 or int64, the bounds 0 .. L of S sequences packed end to end; B must be 1.
        backend: "reference", "torch", "cuda" or "auto".

    Returns:
        o (B, L, HV, V) in the dtype of q. With `return_final_state`, (o, state): state (B, HV, K, V), or
        (S, HV, K, V), in the common dtype of the arguments and at least float32.

    Raises:
        ValueError: shapes that do not fit, an empty axis, dtypes that are not real and floating, several devices, bad
            `cu_seqlens`, a scale that is not a finite number, an unknown backend.
        NotImplementedError: backend="cuda" for tensors or a width that the kernels do not take.
    """
    require_given(g=g, beta=beta)
    options = _Options(scale, qk_l2norm, initial_state, return_final_state, cu_seqlens, backend)
    return _run("gated_delta_rule", q, k, v, g, beta, options)


def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    beta: Tensor,
    scale: float | None = None,
    qk_l2norm: bool = False,
    initial_state: Tensor | None = None,
    return_final_state: bool = False,
    cu_seqlens: Tensor | None = None,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """S ← S + k_t (β_t (v_t − Sᵀ k_t))ᵀ, o_t = scale · Sᵀ q_t: `gated_delta_rule` without decay.

    One step of gradient descent on ½ |Sᵀ k_t − v_t|² with step size β_t (DeltaNet, arXiv 2406.06484).
    Arguments, results and errors are those of `gated_delta_rule`.
    """
    require_given(beta=beta)
    options = _Options(scale, qk_l2norm, initial_state, return_final_state, cu_seqlens, backend)
    return _run("delta_rule", q, k, v, None, beta, options)


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    g: Tensor | None = None,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    return_final_state: bool = False,
    cu_seqlens: Tensor | None = None,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """S ← α_t S + k_t v_tᵀ, o_t = scale · Sᵀ q_t, with α_t = exp(g_t): writing without correction.

    Without g, α = 1, as in arXiv 2006.16236 with the identity as feature map and without its normaliser. With g, the
    recurrence of Mamba-2 in the words of attention. Arguments, results and errors are those of `gated_delta_rule`.
    """
    options = _Options(scale, False, initial_state, return_final_state, cu_seqlens, backend)
    return _run("linear_attention", q, k, v, g, None, options)


class _Options(NamedTuple):
    scale: float | None
    qk_l2norm: bool
    initial_state: Tensor | None
    return_final_state: bool
    cu_seqlens: Tensor | None
    backend: str


def _run(
    operator: str, q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, beta: Tensor | None, options: _Options
) -> Tensor | tuple[Tensor, Tensor]:
    """The three operators: no decay without g, no correction without beta."""
    form = check("B L", q, k, v, g, beta, options.initial_state, options.scale)
    initial, packed = options.initial_state, options.cu_seqlens
    backend = resolve(options.backend, operator, q.device, partial(_obstacle, q, k, v, g, beta, initial))
    bounds, rows = None, q.shape[0]
    if packed is not None:
        bounds, rows = _sequences(packed, backend, batch=q.shape[0], length=q.shape[1])
    if initial is not None:
        require_shape("initial_state", initial, (rows, *form.memory), f"({'B' if packed is None else 'S'}, HV, K, V)")
    if backend == "cuda":
        from ssm_kit.ops.gated_delta import cuda

        o, state = cuda.scan(q, k, v, g, beta, initial, packed, form.scale, options.qk_l2norm)
    else:
        scan = {"reference": reference.scan, "torch": chunked.scan}[backend]
        tensors = prepare(form, q, k, v, g, beta, options.qk_l2norm)
        start = tensors[2].new_zeros(rows, *form.memory) if initial is None else initial.to(form.dtype)
        with full_precision(q.device):
            o, state = _run_torch(partial(scan, scale=form.scale), tensors, start, bounds)
    o = o.to(q.dtype)
    return (o, state) if options.return_final_state else o


def _sequences(cu_seqlens: Tensor, backend: str, **size: int) -> tuple[list[int] | None, int]:
    """The bounds of the packed sequences, which stay on the device for the kernels (None), and their number."""
    if backend == "cuda":
        return None, sequence_count(cu_seqlens, **size)
    bounds = sequence_bounds(cu_seqlens, **size)
    return bounds, len(bounds) - 1


def _obstacle(q: Tensor, *others: Tensor | None) -> str | None:
    from ssm_kit.ops.gated_delta import cuda

    return cuda.unsupported(q, *others, width=q.shape[-1])


def _run_torch(
    scan: Callable[..., tuple[Tensor, Tensor]], tensors: tuple[Any, ...], start: Tensor, bounds: list[int] | None
) -> tuple[Tensor, Tensor]:
    """A scan in torch, on every packed sequence where there are several."""

    def run(tensors: tuple[Any, ...], state: Any) -> tuple[Tensor, Tensor]:
        return scan(*tensors, state)

    return run(tensors, start) if bounds is None else run_packed(run, bounds, tensors, start)
