"""Print the notebook cells of a chapter's exercises: `python -m tools.exercises 2`.

Text, stub and folded solution come from `ssm_kit.exercises`, the one place where they are written.
"""

import argparse

from ssm_kit.exercises import chapter, chapters, check


def cells(number: int) -> str:
    """Markdown with one section per exercise: text cell, cell to fill in, folded solution cell, the verdict on it."""
    parts = []
    for exercise in chapter(number):
        space: dict = {"check": check}
        exec("import numpy as np\n" + exercise.solution, space)
        verdict = check(exercise.id, space[exercise.answer])
        parts += [exercise.markdown, _block("python", exercise.stub), _block("python", exercise.solution)]
        parts += [_block("text", repr(verdict))]
    return "\n\n".join(parts)


def _block(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chapter", type=int, choices=chapters())
    print(cells(parser.parse_args().chapter))
