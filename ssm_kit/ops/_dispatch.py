"""Which implementation runs: one decision, the same for every operator.

"reference"   the sequential definition: any floating dtype, differentiable twice
"torch"       chunked, on any device, by torch alone
"cuda"        GPU kernels; a call that they cannot serve raises and says why
"auto"        "cuda" for tensors on a GPU, or else, with one warning that says why not, "torch"

A public function starts so. The module of kernels is imported, and asked, only for tensors on a GPU:

    def obstacle() -> str | None:
        from ssm_kit.ops.selective_scan import cuda
        return cuda.unsupported(x, delta, A, B, C)

    backend = resolve(backend, "selective_scan", x.device, obstacle)
"""

import warnings
from collections.abc import Callable

import torch

from ssm_kit.ops._check import require_choice

BACKENDS = ("auto", "reference", "torch", "cuda")

_warned: set[str] = set()


def resolve(
    backend: str, operator: str, device: torch.device, unsupported: Callable[[], str | None] | None = None
) -> str:
    """Return "reference", "torch" or "cuda" for a user's `backend`.

    Args:
        backend: one of BACKENDS.
        operator: the public function's name, for the messages.
        device: where the tensors are.
        unsupported: says why the GPU kernels cannot serve this call ("they take no complex numbers"), or None if
            they can; where a package that they need is missing, the import may fail. None: there are no kernels yet.

    Raises:
        ValueError: an unknown backend, or "cuda" for tensors elsewhere.
        NotImplementedError: "cuda" for a call that the kernels cannot serve.
    """
    require_choice("backend", backend, BACKENDS)
    if backend in ("reference", "torch"):
        return backend
    if backend == "auto" and device.type != "cuda":
        return "torch"
    why = _obstacle(device, unsupported)
    if why is None:
        return "cuda"
    if backend == "cuda":
        raise NotImplementedError(f'{operator} has no GPU kernel {why}: use backend="torch", which runs on any device')
    warn_once(operator, f'{operator} has no GPU kernel {why} and runs as backend="torch", which is slower')
    return "torch"


def _obstacle(device: torch.device, unsupported: Callable[[], str | None] | None) -> str | None:
    if unsupported is None:
        return "yet"
    if device.type != "cuda":
        raise ValueError(f'backend="cuda" must be given tensors on a CUDA device; got {device}')
    try:
        why = unsupported()
    except ModuleNotFoundError as missing:
        why = f"{missing.name} is not installed, see the extra [gpu] of ssm_kit"
    return why and f"for this call ({why})"


def step_on_gpu(
    operator: str, unsupported: Callable[..., str | None], x: torch.Tensor, *tensors: torch.Tensor | None
) -> bool:
    """Can the GPU kernel take this step? It has no gradients: where one is wanted, torch takes the step.

    `unsupported(x, *tensors)` is what `resolve` asks.
    """
    wanted = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, *tensors))
    return not wanted and resolve("auto", operator, x.device, lambda: unsupported(x, *tensors)) == "cuda"


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
