"""The question with feedback."""

import pytest

from ssm_kit.figures import Quiz
from ssm_kit.figures.base import VIEW

OPTIONS = [("falls", True, "exp(−Δ) shrinks."), ("rises", False, "That is Δ → 0.")]


def test_choice_and_correctness():
    quiz = Quiz("What happens to Ā?", OPTIONS)
    assert not quiz.correct
    quiz.choice = 1
    assert not quiz.correct
    quiz.choice = 0
    assert quiz.correct
    assert repr(quiz) == "Quiz('What happens to Ā?')"


def test_output_falls_back_to_markdown():
    quiz = Quiz("What happens to Ā?", OPTIONS)
    data, _ = quiz._repr_mimebundle_()
    assert data[VIEW]["model_id"] == quiz.panel.model_id
    assert "image/png" not in data
    assert "<details><summary>rises</summary>\n\n✗ Not quite. That is Δ → 0." in data["text/markdown"]


@pytest.mark.parametrize(
    ("question", "options", "message"),
    [
        (" ", OPTIONS, "question must not be empty"),
        ("Why?", OPTIONS[:1], "two or more"),
        ("Why?", [OPTIONS[1], OPTIONS[1]], "at least one of them right"),
        ("Why?", [OPTIONS[0], ("rises", False, "")], r"got \('rises', False, ''\)"),
        ("Why?", [OPTIONS[0], ("rises", False)], "each of options"),
    ],
)
def test_incomplete_questions_are_refused(question, options, message):
    with pytest.raises(ValueError, match=f"Quiz.*{message}"):
        Quiz(question, options)


def test_choice_must_be_an_option():
    with pytest.raises(ValueError, match="choice must be None or an index below 2, got 2"):
        Quiz("Why?", OPTIONS, choice=2)
