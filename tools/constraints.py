"""Print constraints.txt: everything that the book and its tests need, with the versions installed here.

python -m tools.constraints > constraints.txt
"""

import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
EXTRAS = ("book", "dev")
HEADER = """\
# The versions with which the book is built and tested (python -m tools.constraints prints this file).
# For building and testing only: the package itself asks for lower bounds, see pyproject.toml. Never pass it to Colab.
"""


def direct() -> list[Requirement]:
    """The requirements in pyproject.toml: the package's own and those of the extras for the book and its tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = project["dependencies"] + [line for extra in EXTRAS for line in project["optional-dependencies"][extra]]
    return [Requirement(line) for line in lines]


def installed_closure(requirements: Iterable[Requirement]) -> dict[str, Version]:
    """Canonical name and version of every installed distribution that the requirements lead to on this machine."""
    found: dict[str, Version] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(requirement, "") for requirement in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (requirement.marker and not requirement.marker.evaluate({"extra": extra})) or (
            str(requirement),
            extra,
        ) in seen:
            continue
        seen.add((str(requirement), extra))
        try:
            package = distribution(name)
        except PackageNotFoundError:
            raise SystemExit(
                f"{requirement} is not installed: run `make test` or install '.[book,dev]' first"
            ) from None
        found[name] = Version(package.version)
        needs = [Requirement(line) for line in package.requires or ()]
        waiting += [(need, wanted) for wanted in ("", *requirement.extras) for need in needs]
    return found


def main() -> None:
    # Without torch's local version ("+cpu"), so that the same file serves every platform.
    pins = [f"{name}=={version.public}" for name, version in installed_closure(direct()).items()]
    print(HEADER + "\n".join(sorted(pins)))


if __name__ == "__main__":
    main()
