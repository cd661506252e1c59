"""Which implementation runs: one decision, the same for every operator.

"reference"   the sequential definition: any floating dtype, differentiable twice
"torch"       chunked, on any device, by torch alone
"cuda"        GPU kernels: not written yet, so asking for them raises
"auto"        "torch"; on a GPU it says once per operator that the kernels are not there yet

A public function ends so:

    run = {"reference": reference.scan, "torch": chunked.scan}[resolve(backend, "selective_scan", x.device)]
    with full_precision(x.device):
        y, state = run(...)
"""

import warnings

import torch

from ssm_kit.ops._check import require_choice

BACKENDS = ("auto", "reference", "torch", "cuda")

_warned: set[str] = set()


def resolve(backend: str, operator: str, device: torch.device) -> str:
    """Return "reference" or "torch" for a user's `backend`.

    Args:
        backend: one of BACKENDS.
        operator: the public function's name, for the messages.
        device: where the tensors are.

    Raises:
        ValueError: an unknown backend.
        NotImplementedError: "cuda".
    """
    require_choice("backend", backend, BACKENDS)
    if backend == "cuda":
        raise NotImplementedError(f'{operator} has no GPU kernel yet: use backend="torch", which runs on any device')
    if backend == "auto" and device.type == "cuda":
        warn_once(operator, f'{operator} has no GPU kernel yet and runs as backend="torch", which is slower')
    return "torch" if backend == "auto" else backend


def warn_once(operator: str, message: str) -> None:
    """Warn the caller of a public function, the first time only."""
    if operator not in _warned:
        _warned.add(operator)
        warnings.warn(message, RuntimeWarning, stacklevel=4)


def full_precision(device: torch.device) -> torch.autocast:
    """A context in which autocast does not lower what an operator has decided to compute in float32.

    Enter it in the backward of an `autograd.Function` too: it may run under the caller's autocast.
    """
    return torch.autocast(device.type, enabled=False)
