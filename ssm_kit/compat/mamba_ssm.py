"""The functions of `mamba_ssm` under their own names, layouts and argument orders, run by `ssm_kit.ops`.

Mamba-1 puts channels before time, (B, D, L); Mamba-2 puts time before heads, (B, L, H, P). As in the peer, A is the
negative real matrix itself, not its logarithm, and B̄ = ΔB. Unlike the peer, all of it runs on any device, in any
floating dtype, and gradients also flow through last states and initial states.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ssm_kit.compat._options import refuse
from ssm_kit.compat._packed import last_of_each_row, lay_end_to_end, offsets
from ssm_kit.ops import selective_scan, selective_scan_step, ssd
from ssm_kit.ops._check import bind_shapes, compute_dtype

# The peer's usual 256 is made for its GPU kernel: work within a chunk grows with its length, and costs more here.
_LONGEST_CHUNK = 128


def selective_scan_fn(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The selective scan of Mamba-1 (`mamba_ssm.ops.selective_scan_interface`).

    Args:
        u, delta, z: (B, D, L).
        A: (D, N), real or complex.
        B, C: (B, N, L), (B, G, N, L), or (D, N), the same at every step. With complex A, those that vary are real
            and hold real and imaginary parts side by side, (..., N, 2L), and those that do not are complex.
        D, delta_bias: (D,).

    Returns:
        y (B, D, L), or (y, last state (B, D, N)). With complex A, the states stand for conjugate pairs: y counts
        each twice, 2 Re(C h).

    Raises:
        ValueError: shapes that do not fit, and what `ssm_kit.ops.selective_scan` refuses.
    """
    return _scan("auto", u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state)


def selective_scan_ref(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """`selective_scan_fn` step by step: the definition, by the reference backend."""
    return _scan("reference", u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state)


def selective_state_update(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    state_batch_indices: Tensor | None = None,
) -> Tensor:
    """One step of Mamba-1 or Mamba-2 for decoding; the new state is written into `state`.

    Args:
        state: (B, D, N), or (B, H, P, N) with heads. Changed in place.
        x, dt, z: (B, D) or (B, H, P).
        A: (D, N) or (H, P, N).
        B, C: (B, N) or (B, G, N).
        D, dt_bias: (D,) or (H, P).

    Returns:
        y, in the shape and dtype of x.

    Raises:
        NotImplementedError: `state_batch_indices`.
        ValueError: shapes that do not fit, and what `ssm_kit.ops.selective_scan_step` refuses.
    """
    refuse(state_batch_indices=state_batch_indices)
    channels = "D" if state.ndim == 3 else "H P"
    bind_shapes(
        state=(state, f"B {channels} N"),
        x=(x, f"B {channels}"),
        dt=(dt, f"B {channels}"),
        A=(A, f"{channels} N"),
        B=(B, "B N | B G N"),
        C=(C, "B N | B G N"),
        D=(D, channels),
        z=(z, f"B {channels}"),
        dt_bias=(dt_bias, channels),
    )
    # Heads times their width are channels: neighbours share a group of B and C either way.
    y, following = selective_scan_step(
        x.flatten(1),
        dt.flatten(1),
        A.flatten(0, -2),
        B,
        C,
        state=state.flatten(1, -2).clone(),  # autograd may keep it, and the line after this overwrites it
        D=None if D is None else D.flatten(),
        z=None if z is None else z.flatten(1),
        delta_bias=None if dt_bias is None else dt_bias.flatten(),
        delta_softplus=dt_softplus,
    )
    state.copy_(following.reshape(state.shape))
    return y.reshape(x.shape)


def mamba_chunk_scan_combined(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    seq_idx: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: Sequence[float] = (0.0, float("inf")),
    return_final_states: bool = False,
    return_varlen_states: bool = False,
    state_dtype: torch.dtype | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """The scan of Mamba-2 (`mamba_ssm.ops.triton.ssd_combined`).

    Args:
        x, z: (B, L, H, P).
        dt: (B, L, H); the step is dt + dt_bias, through softplus if asked, then clamped to `dt_limit`.
        A, dt_bias: (H,).
        B, C: (B, L, G, N).
        chunk_size: steps computed together, here at most 128; it changes the speed, never the result.
        D: (H,) or (H, P).
        initial_states: (B, H, P, N).
        seq_idx: (B, L) integers: nothing flows between positions with different numbers.

    Returns:
        y (B, L, H, P), or (y, final states (B, H, P, N)); with `seq_idx`, the state of each row's last sequence.

    Raises:
        NotImplementedError: `cu_seqlens`, `return_varlen_states`, `state_dtype`; `initial_states` with `seq_idx`.
        ValueError: shapes that do not fit, and what `ssm_kit.ops.ssd` refuses.
    """
    refuse(cu_seqlens=cu_seqlens, return_varlen_states=return_varlen_states, state_dtype=state_dtype)
    size = bind_shapes(x=(x, "B L H P"), dt=(dt, "B L H"), dt_bias=(dt_bias, "H"))
    bounds = None
    delta = _step_sizes(dt, dt_bias, dt_softplus, dt_limit)
    if seq_idx is not None:
        refuse(initial_states=initial_states)
        bounds = offsets(seq_idx, batch=size["B"], length=size["L"])
        x, delta, B, C = (lay_end_to_end(tensor) for tensor in (x, delta, B, C))
        z = None if z is None else lay_end_to_end(z)
    y, states = ssd(
        x,
        delta,
        A,
        B,
        C,
        D=D,
        z=z,
        chunk_size=min(chunk_size, _LONGEST_CHUNK),
        initial_state=initial_states,
        return_final_state=True,
        cu_seqlens=bounds,
    )
    if bounds is not None:
        y = y.reshape(size["B"], size["L"], *y.shape[2:])
        states = last_of_each_row(states, bounds, size["L"])
    return (y, states) if return_final_states else y


def _scan(
    backend: str,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    return_last_state: bool,
) -> Tensor | tuple[Tensor, Tensor]:
    columns = "2L" if A.is_complex() else "L"
    forms = f"D N | B N {columns} | B G N {columns}"
    bind_shapes(
        u=(u, "B D L"), delta=(delta, "B D L"), A=(A, "D N"), B=(B, forms), C=(C, forms), z=(z, "B D L"), D=(D, "D")
    )
    B, C = (_per_step(matrix, u, A.is_complex()) for matrix in (B, C))
    if B.shape[2] != C.shape[2]:  # one of them is constant, with a group for every channel
        B, C = (matrix.repeat_interleave(u.shape[1] // matrix.shape[2], dim=2) for matrix in (B, C))
    y, state = selective_scan(
        u.mT,
        delta.mT,
        A,
        B,
        2 * C if A.is_complex() else C,
        D=D,
        z=None if z is None else z.mT,
        delta_bias=delta_bias,
        delta_softplus=delta_softplus,
        return_final_state=True,
        backend=backend,
    )
    return (y.mT, state) if return_last_state else y.mT


def _per_step(matrix: Tensor, u: Tensor, complex_pairs: bool) -> Tensor:
    """B or C in any of the peer's layouts as (B, L, G, N)."""
    batch, _, length = u.shape
    if matrix.ndim == 2:
        return matrix.expand(batch, length, *matrix.shape)
    if matrix.ndim == 3:
        matrix = matrix.unsqueeze(1)
    if complex_pairs:
        pairs = matrix.unflatten(-1, (length, 2))
        matrix = torch.view_as_complex(pairs.to(compute_dtype(pairs)).contiguous())
    return matrix.movedim(-1, 1)


def _step_sizes(dt: Tensor, bias: Tensor | None, softplus: bool, limit: Sequence[float]) -> Tensor:
    """Δ as Mamba-2 has it: dt + bias, through softplus if asked, clamped to the limits."""
    delta = dt.to(compute_dtype(dt, bias))
    if bias is not None:
        delta = delta + bias
    if softplus:
        delta = F.softplus(delta)
    return delta.clamp(*limit)
