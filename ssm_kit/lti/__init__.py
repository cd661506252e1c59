"""Linear time-invariant state-space models, diagonal and dense, on NumPy arrays and torch tensors alike.

`discretize` takes the continuous x' = Ax + Bu to the discrete h_k = Ā h_{k-1} + B̄ x_k; `recurrence` runs it step by
step; `kernel` and `convolve` compute the same outputs as one convolution; `half_life` says how long a state remembers.

B always holds vectors of length N, one input per model. A with as many axes as B is diagonal, (..., N); with one axis
more it is dense, (..., N, N). The leading axes are channels: none for one model, (D,) for D independent ones.
"""

from ssm_kit.lti.convolution import convolve, kernel
from ssm_kit.lti.discretize import discretize
from ssm_kit.lti.recurrence import half_life, recurrence

__all__ = ["convolve", "discretize", "half_life", "kernel", "recurrence"]
