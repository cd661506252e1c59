"""install() and uninstall(), each in a process of its own, since what is imported once stays."""

import os
import subprocess
import sys

import pytest


def run(code: str) -> None:
    """Run Python code with warnings as errors; a failed assertion there fails here."""
    environment = os.environ | {"USE_HUB_KERNELS": "0", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-W", "error::UserWarning", "-c", f"import sys, warnings, ssm_kit.compat\n{code}"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert result.returncode == 0, result.stderr


def test_the_peers_own_imports_work():
    run(
        """
assert ssm_kit.compat.install() == ("mamba_ssm", "causal_conv1d", "fla")
from causal_conv1d import causal_conv1d_fn, causal_conv1d_update
from causal_conv1d.causal_conv1d_interface import causal_conv1d_fn as same
from fla.ops import chunk_gated_delta_rule
from fla.ops.gated_delta_rule import chunk_gated_delta_rule, fused_recurrent_gated_delta_rule
from mamba_ssm import selective_scan_fn
from mamba_ssm.ops.selective_scan_interface import selective_scan_fn, selective_scan_ref
from mamba_ssm.ops.triton.selective_state_update import selective_state_update
from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
import mamba_ssm.ops.triton.ssd_combined as module
assert module.mamba_chunk_scan_combined is ssm_kit.compat.mamba_ssm.mamba_chunk_scan_combined
assert same is causal_conv1d_fn is ssm_kit.compat.causal_conv1d.causal_conv1d_fn
"""
    )


def test_what_we_do_not_have_is_missing_as_from_any_package():
    run(
        """
ssm_kit.compat.install()
for missing in ("fla.ops.kda", "fla.modules", "mamba_ssm.modules.mamba_simple"):
    try:
        __import__(missing)
    except ModuleNotFoundError:
        continue
    raise AssertionError(missing)
"""
    )


def test_uninstall_leaves_no_trace_and_both_may_be_repeated():
    run(
        """
before = dict(sys.modules)
ssm_kit.compat.install()
installed = {name: module for name, module in sys.modules.items() if name not in before}
assert ssm_kit.compat.install() == ("mamba_ssm", "causal_conv1d", "fla")
assert all(sys.modules[name] is module for name, module in installed.items())
ssm_kit.compat.uninstall()
ssm_kit.compat.uninstall()
assert dict(sys.modules) == before
try:
    import mamba_ssm
except ModuleNotFoundError:
    pass
else:
    raise AssertionError(mamba_ssm)
ssm_kit.compat.install()
import mamba_ssm
"""
    )


@pytest.mark.parametrize("imported", [False, True])
def test_an_installed_package_is_not_shadowed(tmp_path, imported):
    package = tmp_path / "causal_conv1d"
    package.mkdir()
    (package / "__init__.py").write_text("__version__ = '1.6.0'\ncausal_conv1d_fn = 'theirs'\n")
    run(
        f"""
sys.path.insert(0, {str(tmp_path)!r})
{"import causal_conv1d" if imported else ""}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    assert ssm_kit.compat.install() == ("mamba_ssm", "fla")
[warning] = caught
assert "causal_conv1d is installed: it is left as it is" in str(warning.message), warning.message
import causal_conv1d, fla
assert causal_conv1d.causal_conv1d_fn == "theirs"
ssm_kit.compat.uninstall()
assert sys.modules["causal_conv1d"] is causal_conv1d and "fla" not in sys.modules
"""
    )


def test_transformers_availability_checks():
    """Without a CUDA device they all say no; with one (pretended here) they accept the stand-ins and their versions."""
    run(
        """
import torch
torch.cuda.is_available = lambda: True
from transformers.utils import import_utils
checks = [getattr(import_utils, f"is_{name}_available")
          for name in ("mamba_ssm", "mamba_2_ssm", "causal_conv1d", "flash_linear_attention")]
assert not any(check() for check in checks)
ssm_kit.compat.install()
assert all(check() for check in checks), [check() for check in checks]
assert import_utils._is_package_available("fla", return_version=True) == (True, "0.2.2+ssm.kit")
ssm_kit.compat.uninstall()
assert not any(check() for check in checks)
"""
    )


def test_a_late_call_says_so():
    run(
        """
from transformers.models.mamba import modeling_mamba
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    ssm_kit.compat.install()
    ssm_kit.compat.install()
[warning] = caught
assert "install() came after the import of transformers.models.mamba.modeling_mamba" in str(warning.message)
"""
    )
