"""Exercises that mark themselves: `check("2.3", answer)`."""

import importlib
import pkgutil
from typing import Any

from ssm_kit.exercises.exercise import Exercise
from ssm_kit.exercises.verdict import Verdict

__all__ = ["Exercise", "Verdict", "chapter", "chapters", "check", "find"]


def chapters() -> list[int]:
    """Numbers of the chapters that have exercises."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(int(name.removeprefix("chapter_")) for name in names if name.startswith("chapter_"))


def chapter(number: int) -> tuple[Exercise, ...]:
    """All exercises of one chapter, in order."""
    return importlib.import_module(f"{__name__}.chapter_{number}").EXERCISES


def find(exercise_id: str) -> Exercise:
    """The exercise with this id, such as "2.3". Raises ValueError, listing all ids, where there is none."""
    known = {exercise.id: exercise for number in chapters() for exercise in chapter(number)}
    if exercise_id not in known:
        raise ValueError(f"exercise_id: expected one of {', '.join(known)}; got {exercise_id!r}")
    return known[exercise_id]


def check(exercise_id: str, answer: Any) -> Verdict:
    """Mark an answer: a number or a function, as the exercise asks.

    Returns a `Verdict`: "not attempted", "not yet" with what was compared and a hint, or "right" with an insight.
    A mistake in the answer never raises. Raises ValueError if there is no exercise with this id.
    """
    return find(exercise_id).judge(answer)
