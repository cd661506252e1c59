"""The notebooks show the exercises exactly as the package has them."""

import json
from pathlib import Path

import pytest

from ssm_kit.exercises import chapter, chapters

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.mark.parametrize("number", chapters())
def test_text_stub_and_solution_are_those_of_the_package(number):
    (path,) = NOTEBOOKS.glob(f"{number:02}_*.ipynb")
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(path.read_text())["cells"]]
    texts = [source for kind, source in cells if kind == "markdown"]
    codes = [source for kind, source in cells if kind == "code"]
    for exercise in chapter(number):
        assert any(exercise.markdown in text for text in texts), f"{exercise.id}: the text differs"
        assert codes.index(exercise.stub) + 1 == codes.index(exercise.solution), f"{exercise.id}: the solution follows"
