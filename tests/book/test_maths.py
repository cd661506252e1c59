"""Formulas are typeset while the book is built; a mistake in one is reported."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "book" / "_ext"))

from textbook.maths import typeset

GOOD = [r"\bar{A} \in \mathbb{R}^{N \times N}", r"\begin{aligned}a &= b \\ c &= d\end{aligned}"]


@pytest.mark.parametrize("latex", GOOD)
def test_typesets(latex):
    (answer,) = typeset([(latex, True)])
    assert "katex-display" in answer["html"]
    assert "<math" in answer["html"]  # for screen readers


@pytest.mark.parametrize("latex", [r"\frac{1}{", r"\nosuchcommand", "a_b_c"])
def test_reports_mistakes(latex):
    answers = typeset([("x", False), (latex, False)])
    assert "html" in answers[0]
    assert "KaTeX parse error" in answers[1]["error"]
