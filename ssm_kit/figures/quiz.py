"""A question with feedback for every answer."""

from collections.abc import Sequence
from math import ceil
from typing import Any

import traitlets as T

from .base import Figure, ParameterError

VERDICTS = {True: "✓ Correct.", False: "✗ Not quite."}  # as in src/views/quiz.js


class Quiz(Figure):
    """A multiple-choice question; plain text, mathematics in Unicode.

    Args:
        question: what is asked.
        options: two or more (answer, whether it is right, feedback); at least one is right, each has feedback.
        choice: index of the chosen option, None before the reader chose.

    Raises:
        ValueError: fewer than two options, none right, or a text missing.
    """

    bundle = "quiz.js"

    question = T.Unicode().tag(sync=True)
    options = T.List(T.Tuple(T.Unicode(), T.Bool(), T.Unicode())).tag(sync=True)
    choice = T.Int(None, allow_none=True).tag(sync=True)

    def __init__(self, question: str, options: Sequence[tuple[str, bool, str]], **parameters: Any) -> None:
        if not question.strip():
            raise ParameterError("Quiz: question must not be empty")
        for option in options:
            if len(option) != 3 or not (option[0].strip() and option[2].strip()):
                raise ParameterError(f"Quiz: each of options must be (answer, right?, feedback), got {option!r}")
        if len(options) < 2 or not any(right for _, right, _ in options):
            raise ParameterError(f"Quiz: options must be two or more, at least one of them right, got {options!r}")
        if (choice := parameters.get("choice")) is not None and choice not in range(len(options)):
            raise ParameterError(f"Quiz: choice must be None or an index below {len(options)}, got {choice!r}")
        super().__init__(question=question, options=list(options), **parameters)

    @property
    def correct(self) -> bool:
        """Whether the reader's present choice is right."""
        return self.choice is not None and self.options[self.choice][1]

    def space(self) -> tuple[int, int]:
        """Estimated from the lengths of the texts, at about 7 pixels per character."""

        def height(width: int) -> int:
            def lines(text: str, room: float, per_character: float = 7.0) -> int:
                return ceil(len(text) * per_character / room)

            question = 6 + 22 * lines(self.question, width, 8.5)
            answers = sum(max(38, 10 + 18 * lines(answer, width - 26)) for answer, _, _ in self.options)
            feedback = max(lines(VERDICTS[right] + why, width - 92) for _, right, why in self.options)
            return question + answers + 8 + max(32, 19 * feedback)

        return height(720), height(358)

    def __repr__(self) -> str:
        return f"Quiz({self.question!r})"

    def fallback(self) -> dict[str, str]:
        """The question as Markdown, with the feedback behind each answer."""
        answers = (
            f"<details><summary>{answer}</summary>\n\n{VERDICTS[right]} {why}\n\n</details>"
            for answer, right, why in self.options
        )
        return {"text/markdown": "\n\n".join([f"**{self.question}**", *answers])}
