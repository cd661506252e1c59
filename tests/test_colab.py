"""The notebooks run in Colab: its versions of everything, and `ssm_kit` installed by the notebook's own first cell."""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import repository
from tools.constraints import installed_closure

ROOT = Path(__file__).parents[1]
REQUIREMENTS = Path(__file__).with_name("colab-requirements.txt")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def run(*command, **options):
    """Output of a program. Fails with everything that it printed."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def installed(python):
    """Names and versions of the distributions that an interpreter sees."""
    program = (
        "from importlib.metadata import distributions\n"
        "for d in distributions(): print(d.metadata['Name'].lower().replace('_', '-'), d.version)"
    )
    return dict(line.split() for line in run(python, "-I", "-c", program).splitlines())


def departures(python):
    """Listed packages whose version is another one in the environment, with the version found."""
    listed = [line.split("==") for line in REQUIREMENTS.read_text().splitlines() if not line.startswith("#")]
    found = installed(python)
    names = [(name.lower().replace("_", "-"), version) for name, version in listed]
    return {name: found.get(name) for name, version in names if found.get(name) != version}


def show_torch(environment):
    """Let the environment see this interpreter's torch and what torch needs, and nothing else of it."""
    given = {canonicalize_name(line.split("==")[0]) for line in REQUIREMENTS.read_text().splitlines()}
    folder = environment / "torch"
    folder.mkdir()
    for name in installed_closure([Requirement("torch")]).keys() - given:
        package = distribution(name)
        tops = {file.parts[0] for file in package.files or () if file.parts[0] not in ("..", "__pycache__")}
        for top in tops:
            with contextlib.suppress(FileExistsError):  # a folder that several distributions share
                (folder / top).symlink_to(package.locate_file(top))
    (site_packages,) = environment.glob("lib/python*/site-packages")
    (site_packages / "torch.pth").write_text(f"{folder}\n")


def build(environment):
    run(sys.executable, "-m", "venv", environment)
    python = environment / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "-r", REQUIREMENTS)
    show_torch(environment)
    (environment / "complete").touch()


@pytest.fixture(scope="module")
def python():
    """Interpreter of an environment with Colab's versions, kept in .cache/, in which ssm_kit is not installed."""
    torch = distribution("torch")
    key = REQUIREMENTS.read_text() + sys.version + torch.version + str(torch.locate_file("torch"))
    environment = ROOT / ".cache" / f"colab-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    python = environment / "bin" / "python"
    if not (environment / "complete").exists() or departures(python):
        shutil.rmtree(environment, ignore_errors=True)
        build(environment)
    run(python, "-m", "pip", "uninstall", "--quiet", "--yes", "ssm_kit")
    return python


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """Address of a Git repository that holds this working tree, changes included, as one commit."""
    folder = tmp_path_factory.mktemp("repository")
    names = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", cwd=ROOT).split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():  # not one that has just been deleted
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    run("git", "init", "--quiet", cwd=folder)
    run("git", "add", "--all", cwd=folder)
    run("git", "-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "--quiet", "-m", "all", cwd=folder)
    # With a host, because older pips refuse the empty one of file:/// after "ssm_kit @".
    return folder.as_uri().replace("file://", "file://localhost")


@pytest.fixture
def execute(python, tmp_path):
    """A function that executes a notebook in that environment, in an empty folder, and returns it with its outputs."""
    kernel = tmp_path / "jupyter" / "kernels" / "colab"
    kernel.mkdir(parents=True)
    argv = [str(python), "-I", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Colab", "language": "python"}))
    content = tmp_path / "content"
    content.mkdir()

    def execute(notebook):
        nbformat.write(notebook, content / "notebook.ipynb")
        command = sys.executable, "-m", "jupyter", "execute", "--inplace", "--kernel_name=colab", "--timeout=300"
        environment = os.environ | {"JUPYTER_PATH": str(tmp_path / "jupyter")}
        run(*command, content / "notebook.ipynb", env=environment)
        return nbformat.read(content / "notebook.ipynb", as_version=4)

    return execute


def test_there_are_notebooks():
    assert NOTEBOOKS


def test_the_environment_is_colabs(python):
    assert departures(python) == {}
    assert "ssm-kit" not in installed(python)
    torch = run(python, "-I", "-c", "import torch; print(torch.arange(3).numpy().sum(), torch.__version__)").split()
    assert torch == ["3", distribution("torch").version]


def test_the_first_cell_installs_the_package_and_changes_nothing_else(python, clone, execute):
    before = installed(python)
    cell = repository.install_cell(clone)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    execute(notebook)
    after = installed(python)
    assert after.pop("ssm-kit")
    assert after == before


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, python, clone, execute):
    notebook = nbformat.read(path, as_version=4)
    assert repository.first_code_cell(path) == repository.install_cell(repository.address())
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    first.source = repository.install_cell(clone)
    where = "import ssm_kit; print(ssm_kit.__file__)"
    notebook.cells.append(nbformat.v4.new_code_cell(where))
    executed = execute(notebook)
    assert Path(executed.cells[-1].outputs[0].text.strip()).is_relative_to(python.parents[1])
