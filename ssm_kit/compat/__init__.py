"""Code written for `mamba_ssm`, `causal_conv1d` or `fla`, run by `ssm_kit.ops`, on any device and without a build.

Import the functions from here under the peers' names, `from ssm_kit.compat.mamba_ssm import selective_scan_fn`; or
let other packages find them under the peers' module names:

    import ssm_kit.compat
    ssm_kit.compat.install()
    from transformers import MambaForCausalLM       # trains on our operators, on a CPU too

transformers asks for the peers once, when a modelling module is imported, so `install()` comes before that. Version
5.23 (with which this is tested) takes any function that it finds, on every device; earlier versions first ask for a
CUDA device and keep to their own loops without one. Its fused training functions (`mamba_inner_fn`,
`mamba_split_conv1d_scan_combined`) are left out on purpose: they drop the padding mask after the convolution, and the
plain path that transformers then takes runs on our operators anyway. It says so in a log message that takes the
package for missing; that message is harmless.
"""

import importlib.util
import sys
import warnings
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType

from ssm_kit.compat import causal_conv1d, fla, mamba_ssm

__all__ = ["install", "uninstall"]

# What each stand-in says when asked: the lowest version that transformers accepts, marked as ours.
_VERSIONS = {"mamba_ssm": "2.0.4+ssm.kit", "causal_conv1d": "1.4.0+ssm.kit", "fla": "0.2.2+ssm.kit"}

_convolutions = (causal_conv1d.causal_conv1d_fn, causal_conv1d.causal_conv1d_update)
_delta_rules = (fla.chunk_gated_delta_rule, fla.fused_recurrent_gated_delta_rule)

# The peers' modules, parents first, and what of each we stand in for.
_MODULES: dict[str, tuple[Callable, ...]] = {
    "mamba_ssm": (mamba_ssm.selective_scan_fn,),
    "mamba_ssm.ops": (),
    "mamba_ssm.ops.selective_scan_interface": (mamba_ssm.selective_scan_fn, mamba_ssm.selective_scan_ref),
    "mamba_ssm.ops.triton": (),
    "mamba_ssm.ops.triton.ssd_combined": (mamba_ssm.mamba_chunk_scan_combined,),
    "mamba_ssm.ops.triton.selective_state_update": (mamba_ssm.selective_state_update,),
    "causal_conv1d": _convolutions,
    "causal_conv1d.causal_conv1d_interface": _convolutions,
    "fla": (),
    "fla.ops": _delta_rules,
    "fla.ops.gated_delta_rule": _delta_rules,
}

_installed: dict[str, ModuleType] = {}


def install() -> tuple[str, ...]:
    """Register our functions under the module names of `mamba_ssm`, `causal_conv1d` and `fla` where those are absent.

    A package that is installed, or that someone else has already put into `sys.modules`, is left alone, with a
    warning. Calling again changes nothing.

    Returns:
        the packages that now run on `ssm_kit.ops`.
    """
    missing = [package for package in _VERSIONS if package not in _installed]
    for package in missing:
        if package in sys.modules or importlib.util.find_spec(package) is not None:
            warnings.warn(f"{package} is installed: it is left as it is, not replaced by ssm_kit", stacklevel=2)
            continue
        for name in _MODULES:
            if name.split(".")[0] == package:
                _register(name, _VERSIONS[package])
    if any(package in _installed for package in missing):
        _forget_lookups()
        _warn_if_late()
    return tuple(package for package in _VERSIONS if package in _installed)


def uninstall() -> None:
    """Take away what `install` registered. Modules that have already imported our functions keep them."""
    for name, module in _installed.items():
        if sys.modules.get(name) is module:
            del sys.modules[name]
    _installed.clear()
    _forget_lookups()


def _register(name: str, version: str) -> None:
    """Put a stand-in into `sys.modules`, and into its parent as an attribute, as an import would."""
    module = ModuleType(name, f"{name} by ssm_kit.compat: the same names, other code.")
    module.__spec__ = ModuleSpec(name, loader=None, origin="ssm_kit.compat", is_package=True)
    module.__package__ = name
    module.__path__ = []
    module.__version__ = version  # type: ignore[attr-defined]
    for function in _MODULES[name]:
        setattr(module, function.__name__, function)
    sys.modules[name] = _installed[name] = module
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)


def _forget_lookups() -> None:
    """transformers remembers what it once found; let it look again."""
    lookups = sys.modules.get("transformers.utils.import_utils")
    for package in ("mamba_ssm", "mamba_2_ssm", "causal_conv1d", "flash_linear_attention"):
        lookup = getattr(lookups, f"is_{package}_available", None)
        if forget := getattr(lookup, "cache_clear", None):
            forget()


def _warn_if_late() -> None:
    """Name the modelling modules that were imported before and keep what they have."""
    late = [
        name
        for name, module in sys.modules.items()
        if name.startswith("transformers.models.")
        and name.rpartition(".")[2].startswith("modeling_")
        and hasattr(module, "causal_conv1d_fn")
    ]
    if late:
        warnings.warn(f"install() came after the import of {', '.join(late)}: they keep what they found", stacklevel=3)
