"""The gated delta rule of `fla` (flash-linear-attention) under its own names and argument order, by `ssm_kit.ops`.

Time comes before heads, [B, T, H, K]; the decay g is a logarithm; the state is [B, HV, K, V]. Unlike the peer's
kernels, both functions run on any device, in any floating dtype, and both have gradients.

Versions of the peer disagree on what follows `use_qk_l2norm_in_kernel`, so from there on options must be named.
"""

from torch import Tensor

from ssm_kit.compat._options import refuse
from ssm_kit.ops import gated_delta_rule


def chunk_gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None = None,
    beta: Tensor | None = None,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    *,
    cu_seqlens: Tensor | None = None,
    **options: object,
) -> tuple[Tensor, Tensor | None]:
    """The gated delta rule of a whole sequence (`fla.ops.gated_delta_rule`).

    Args:
        q, k: [B, T, H, K].
        v: [B, T, HV, V], HV a multiple of H.
        g: [B, T, HV], the decay is exp(g); None: no decay.
        beta: [B, T, HV]; None: ones.
        scale: of the queries; None: 1/√K.
        initial_state: [B, HV, K, V]; with `cu_seqlens`, one for each packed sequence.
        use_qk_l2norm_in_kernel: bring q and k to unit length first.
        cu_seqlens: the offsets of packed sequences, [S + 1].

    Returns:
        o [B, T, HV, V], and the final state [B, HV, K, V] if asked, else None.

    Raises:
        NotImplementedError: any further option of the peer that is given (neither None nor False).
        ValueError: what `ssm_kit.ops.gated_delta_rule` refuses.
    """
    refuse(**options)
    steps = v.shape[:3]
    o, state = gated_delta_rule(
        q,
        k,
        v,
        g=v.new_zeros(steps) if g is None else g,
        beta=v.new_ones(steps) if beta is None else beta,
        scale=scale,
        qk_l2norm=use_qk_l2norm_in_kernel,
        initial_state=initial_state,
        return_final_state=True,
        cu_seqlens=cu_seqlens,
    )
    return o, state if output_final_state else None


def fused_recurrent_gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None = None,
    gk: Tensor | None = None,
    gv: Tensor | None = None,
    beta: Tensor | None = None,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    *,
    cu_seqlens: Tensor | None = None,
    **options: object,
) -> tuple[Tensor, Tensor | None]:
    """The same rule, which the peer runs step by step for decoding; mind the places of `gk`, `gv` and `beta`.

    Arguments and results are those of `chunk_gated_delta_rule`.

    Raises:
        NotImplementedError: `gk`, `gv` (decays of single keys or values), and
            any further option that is given.
        ValueError: what `ssm_kit.ops.gated_delta_rule` refuses.
    """
    refuse(gk=gk, gv=gv)
    return chunk_gated_delta_rule(
        q,
        k,
        v,
        g,
        beta,
        scale,
        initial_state,
        output_final_state,
        use_qk_l2norm_in_kernel,
        cu_seqlens=cu_seqlens,
        **options,
    )
