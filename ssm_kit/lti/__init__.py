"""Linear time-invariant state-space models, diagonal and dense, on NumPy arrays and torch tensors alike.

`discretize` takes the continuous x' = Ax + Bu to the discrete h_k = Ā h_{k-1} + B̄ x_k; `recurrence` runs it step by
step; `kernel` and `convolve` compute the same outputs as one convolution; `half_life` says how long a state remembers.

B always holds vectors of length N, one input per model. A with as many axes as B is diagonal, (..., N); with one axis
more it is dense, (..., N, N). The leading axes are channels: none for one model, (D,) for D independent ones.

Which A: `hippo_legs` keeps the history as Legendre coefficients, `legs_states` runs its original with 1/t, and
`reconstruct` draws what a state remembers. `legs_nplr` and `legs_dplr` show it as normal plus rank one, which is what
S4's `dplr_kernel`, `dplr_response` and `dplr_step` live on. `s4d_init` keeps the diagonal alone.
"""

from ssm_kit.lti.convolution import convolve, kernel
from ssm_kit.lti.discretize import discretize
from ssm_kit.lti.hippo import hippo_legs, legendre, legs_states, reconstruct
from ssm_kit.lti.recurrence import half_life, recurrence
from ssm_kit.lti.s4 import DPLR, dplr_kernel, dplr_response, dplr_step, legs_dplr, legs_nplr, truncated_output
from ssm_kit.lti.s4d import S4D_KINDS, s4d_init

__all__ = [
    "DPLR",
    "S4D_KINDS",
    "convolve",
    "discretize",
    "dplr_kernel",
    "dplr_response",
    "dplr_step",
    "half_life",
    "hippo_legs",
    "kernel",
    "legendre",
    "legs_dplr",
    "legs_nplr",
    "legs_states",
    "reconstruct",
    "recurrence",
    "s4d_init",
    "truncated_output",
]
