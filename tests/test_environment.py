"""environment.yml and constraints.txt say what pyproject.toml says."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tools import constraints

ROOT = Path(__file__).parents[1]
CONDA_NAMES = {"pytorch": "torch"}
NAMED = {"jupyterlab", "ipywidgets", "numpy", "pytorch", "matplotlib", "jupyter-book", "nbval"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
PINS = {
    canonicalize_name(pin.name): pin
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
    for pin in [Requirement(line)]
}
DIRECT = {canonicalize_name(requirement.name): requirement for requirement in constraints.direct()}


def faults(environment):
    """What is wrong with an environment.yml, one line each."""
    conda = [Requirement(line) for line in environment["dependencies"] if isinstance(line, str)]
    pip = [line for group in environment["dependencies"] if isinstance(group, dict) for line in group["pip"]]
    found = [f"{name} is not named" for name in sorted(NAMED - {package.name for package in conda})]
    for package in conda:
        name = canonicalize_name(CONDA_NAMES.get(package.name, package.name))
        if name == "pip":
            continue
        asked = SpecifierSet(PROJECT["requires-python"]) if name == "python" else DIRECT.get(name, package).specifier
        if name != "python" and name not in DIRECT:
            found.append(f"{package.name} is not in pyproject.toml")
        if package.specifier != asked:
            found.append(f"{package.name}: {package.specifier}, but pyproject.toml asks for {asked}")
    extras = [re.fullmatch(r"-e \.\[(.*)\]", line.replace(", ", ",")) for line in pip]
    if len(pip) != 1 or not extras[0] or set(extras[0][1].split(",")) != set(constraints.EXTRAS):
        found.append(f"pip installs {pip}, expected one line -e .[{','.join(constraints.EXTRAS)}]")
    return found


def test_environment_yml():
    assert faults(ENVIRONMENT) == []


@pytest.mark.parametrize(
    ("line", "replacement", "fault"),
    [
        ("python>=3.11", "python>=3.10", "python: >=3.10, but pyproject.toml asks for >=3.11"),
        ("numpy>=2.0", "numpy", "numpy: , but"),
        ("numpy>=2.0", "numpy==1.26", "numpy: ==1.26, but"),
        ("pytorch>=2.6", None, "pytorch is not named"),
        ("nbval>=0.11", None, "nbval is not named"),
        ("jupyter-book>=1.0.4,<2", "jupyter-book>=1.0.4", "jupyter-book: >=1.0.4, but"),
        ("pip", "scipy>=1", "scipy is not in pyproject.toml"),
        ({"pip": ["-e .[book,dev]"]}, {"pip": ["-e .[book]"]}, "pip installs"),
        ({"pip": ["-e .[book,dev]"]}, {"pip": ["ssm_kit"]}, "pip installs"),
        ({"pip": ["-e .[book,dev]"]}, None, "pip installs"),
    ],
)
def test_a_planted_fault_is_found(line, replacement, fault):
    lines = ENVIRONMENT["dependencies"]
    assert line in lines
    planted = [replacement if entry == line else entry for entry in lines]
    found = faults({"dependencies": [entry for entry in planted if entry is not None]})
    assert any(text.startswith(fault) for text in found), found


def test_extras_exist():
    assert set(constraints.EXTRAS) <= PROJECT["optional-dependencies"].keys()


def test_every_constraint_is_one_exact_version():
    for name, pin in PINS.items():
        assert re.fullmatch(r"==[\w.]+", str(pin.specifier)), name
        assert pin.url is None


def test_every_requirement_is_pinned_within_its_bounds():
    extras = [Requirement(line) for lines in PROJECT["optional-dependencies"].values() for line in lines]
    for requirement in [*DIRECT.values(), *extras]:
        (pin,) = PINS[canonicalize_name(requirement.name)].specifier
        assert requirement.specifier.contains(pin.version), (str(requirement), pin.version)


def test_everything_that_they_lead_to_is_pinned():
    missing = constraints.installed_closure(DIRECT.values()).keys() - PINS.keys()
    assert missing == set()


def test_the_closure_follows_extras_and_markers():
    found = constraints.installed_closure(
        [Requirement("jsonschema[format-nongpl]"), Requirement("x; sys_platform == 'no'")]
    )
    assert {"jsonschema", "attrs", "webcolors", "fqdn"} <= found.keys()
    assert "webcolors" not in constraints.installed_closure([Requirement("jsonschema")])
    with pytest.raises(SystemExit, match="no-such-package is not installed"):
        constraints.installed_closure([Requirement("no-such-package")])
