"""One address, repeated without a difference; a fork's stamp reaches every place."""

import json
import shutil

import nbformat
import pytest

from tools import repository

PLACEHOLDER = "https://github.com/your_account/ssm-textbook"
README = """
[Open](https://colab.research.google.com/github/your_account/ssm-textbook/blob/main/notebooks/0.ipynb)
[Read](https://your_account.github.io/ssm-textbook/) or `git clone https://github.com/your_account/ssm-textbook.git`
![tests](https://github.com/your_account/ssm-textbook/actions/workflows/test.yml/badge.svg)
After https://github.com/state-spaces/mamba; see also https://github.com/your_account/ssm-textbook-two
"""


@pytest.fixture
def root(tmp_path):
    """A small repository with every kind of place that repeats the address."""
    (tmp_path / "pyproject.toml").write_text(f'[project.urls]\nRepository = "{PLACEHOLDER}"\n')
    (tmp_path / "CITATION.cff").write_text(f'repository-code: "{PLACEHOLDER}"\n')
    (tmp_path / "README.md").write_text(README)
    (tmp_path / "notebooks").mkdir()
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_markdown_cell("# Title"), nbformat.v4.new_code_cell(install())]
    nbformat.write(notebook, tmp_path / "notebooks" / "00_first.ipynb")
    return tmp_path


def install(address=PLACEHOLDER):
    return repository.install_cell(address)


def test_this_repository_agrees_with_its_pyproject():
    assert repository.disagreements() == []
    assert repository.address().startswith("https://github.com/")


def test_a_stamp_reaches_every_place_and_nothing_else(root):
    assert repository.disagreements(root) == []
    changed = repository.stamp("someone-else/my.fork", root)
    assert [path.name for path in changed] == ["CITATION.cff", "README.md", "00_first.ipynb", "pyproject.toml"]
    assert repository.address(root) == "https://github.com/someone-else/my.fork"
    assert repository.disagreements(root) == []
    readme = (root / "README.md").read_text()
    assert "https://someone-else.github.io/my.fork/" in readme
    assert "https://github.com/state-spaces/mamba" in readme
    assert readme.count("your_account") == 1
    assert "your_account/ssm-textbook-two" in readme
    assert "someone-else/my.fork" in repository.first_code_cell(root / "notebooks" / "00_first.ipynb")


def test_a_second_stamp_starts_from_the_first(root):
    repository.stamp("first/fork", root)
    repository.stamp("second/fork", root)
    assert repository.disagreements(root) == []
    assert "first" not in (root / "README.md").read_text()
    assert repository.stamp("second/fork", root) == []


@pytest.mark.parametrize("slug", ["", "name", "a/b/c", "https://github.com/a/b", "own_er/name", "a/", "-a/b", "a b/c"])
def test_what_cannot_be_a_repository(root, slug):
    with pytest.raises(ValueError, match="slug: expected OWNER/NAME as on GitHub, got "):
        repository.stamp(slug, root)


@pytest.mark.parametrize("name", ["CITATION.cff", "README.md"])
def test_another_address_is_found(root, name):
    path = root / name
    path.write_text(path.read_text().replace("your_account", "another"))
    assert any(line.startswith(f"{name}: https://github.com/another/") for line in repository.disagreements(root))


@pytest.mark.parametrize("source", [install("https://github.com/another/fork"), "import ssm_kit", None])
def test_another_first_cell_is_found(root, source):
    path = root / "notebooks" / "01_second.ipynb"
    shutil.copy(root / "notebooks" / "00_first.ipynb", path)
    notebook = json.loads(path.read_text())
    if source is None:
        del notebook["cells"][1]
    else:
        notebook["cells"][1]["source"] = source
    path.write_text(json.dumps(notebook))
    assert len(repository.disagreements(root)) == 1
    assert "01_second.ipynb: its first code cell" in repository.disagreements(root)[0]
