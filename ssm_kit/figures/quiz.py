"""A question with feedback for every answer."""

from collections.abc import Sequence
from typing import Any

import traitlets as T

from .base import Figure, ParameterError


class Quiz(Figure, bundle="quiz.js"):
    """A multiple-choice question; plain text, mathematics in Unicode.

    Args:
        question: what is asked.
        options: two or more (answer, whether it is right, feedback); at least one is right, each has feedback.
        choice: index of the chosen option, None before the reader chose.

    Raises:
        ValueError: fewer than two options, none right, or a text missing.
    """

    question = T.Unicode().tag(sync=True)
    options = T.List(T.Tuple(T.Unicode(), T.Bool(), T.Unicode())).tag(sync=True)
    choice = T.Int(None, allow_none=True).tag(sync=True)

    def __init__(self, question: str, options: Sequence[tuple[str, bool, str]], **parameters: Any) -> None:
        if not question.strip():
            raise ParameterError("Quiz: question must not be empty")
        if len(options) < 2 or not any(right for _, right, _ in options):
            raise ParameterError(f"Quiz: options must be two or more, at least one of them right, got {options!r}")
        for answer, _, feedback in options:
            if not (answer.strip() and feedback.strip()):
                raise ParameterError(f"Quiz: every option needs an answer and feedback, got {(answer, feedback)!r}")
        super().__init__(question=question, options=list(options), **parameters)

    @property
    def correct(self) -> bool:
        """Whether the reader's present choice is right."""
        return self.choice is not None and self.options[self.choice][1]

    def __repr__(self) -> str:
        return f"Quiz({self.question!r})"

    def fallback(self) -> dict[str, str]:
        """The question as Markdown, with the feedback behind each answer."""
        answers = (
            f"<details><summary>{answer}</summary>\n\n{'Correct.' if right else 'Not quite.'} {why}\n\n</details>"
            for answer, right, why in self.options
        )
        return {"text/markdown": "\n\n".join([f"**{self.question}**", *answers])}
