"""The repository's address, written in pyproject.toml and stamped from there into everything that must repeat it.

python -m tools.repository               print the address
python -m tools.repository OWNER/NAME    stamp another one (a fork's publishing workflow does this)
python -m tools.repository --check       exit 1 unless all files agree with pyproject.toml
"""

import argparse
import json
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOST = "https://github.com/"
STAMPED = ("pyproject.toml", "CITATION.cff", "*.md", "book/*.md", "notebooks/*.ipynb")

# Addresses that must be this repository's own: a Colab link, a workflow's badge, a citation, something to clone.
OWN = re.compile(
    r"colab\.research\.google\.com/github/([\w.-]+/[\w.-]+)/"
    r"|github\.com/([\w.-]+/[\w.-]+)/actions/"
    r"|repository-code:\s*\"?https://github\.com/([\w.-]+/[\w.-]+?)\"?\s"
    r"|git clone https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?\s"
)


def address(root: Path = ROOT) -> str:
    """The address in pyproject.toml, such as "https://github.com/OWNER/NAME"."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["urls"]["Repository"]


def install_cell(address: str) -> str:
    """Source of a notebook's first code cell: installs the package where it is missing, that is in Colab.

    anywidget switches Colab's support for custom widgets on by itself, so nothing else is needed.
    """
    return (
        "import importlib.util\n"
        "\n"
        'if importlib.util.find_spec("ssm_kit") is None:  # in Colab: install the package behind this book\n'
        f'    %pip install --quiet "ssm_kit @ git+{address}"'
    )


def first_code_cell(notebook: Path) -> str:
    """Source of the first code cell, "" where there is none."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return next(("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"), "")


def stamp(slug: str, root: Path = ROOT) -> list[Path]:
    """Replace the present address by OWNER/NAME wherever it is written; the files changed.

    Raises ValueError unless `slug` can be a repository on GitHub.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*/[\w.-]+", slug):
        raise ValueError(f"slug: expected OWNER/NAME as on GitHub, got {slug!r}")
    old = address(root).removeprefix(HOST)
    # Both ways of writing it: the repository, and the site that GitHub Pages makes of it.
    pairs = [(old, slug), (_pages(old), _pages(slug))]
    changed = []
    for path in _files(root):
        text = stamped = path.read_text(encoding="utf-8")
        for before, after in pairs:
            stamped = re.sub(rf"(?<![\w.-]){re.escape(before)}(?![\w-])", after, stamped)
        if stamped != text:
            path.write_text(stamped, encoding="utf-8", newline="\n")
            changed.append(path)
    return changed


def disagreements(root: Path = ROOT) -> list[str]:
    """One line for every place whose address is not that of pyproject.toml."""
    expected, found = address(root), []
    for path in _files(root):
        slugs = {next(filter(None, match.groups())) for match in OWN.finditer(path.read_text(encoding="utf-8"))}
        found += [f"{path.relative_to(root)}: {HOST}{slug}" for slug in sorted(slugs) if HOST + slug != expected]
    for path in sorted(root.glob("notebooks/*.ipynb")):
        if first_code_cell(path) != install_cell(expected):
            found.append(f"{path.relative_to(root)}: its first code cell is not the install cell for {expected}")
    return found


def _files(root: Path) -> list[Path]:
    return sorted(path for pattern in STAMPED for path in root.glob(pattern))


def _pages(slug: str) -> str:
    owner, name = slug.split("/")
    return f"{owner}.github.io/{name}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slug", nargs="?", metavar="OWNER/NAME")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if options.slug:
        try:
            changed = stamp(options.slug)
        except ValueError as error:
            parser.error(str(error))
        print(*(f"stamped {path.relative_to(ROOT)}" for path in changed), sep="\n")
    if options.check and (found := disagreements()):
        raise SystemExit(f"not {address()}:\n" + "\n".join(found))
    if not options.slug:
        print(address())


if __name__ == "__main__":
    main()
