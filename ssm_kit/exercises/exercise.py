"""The three kinds of exercise: a number, a function with a known result, a function that breaks a claim."""

import ast
import inspect
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ssm_kit.exercises.compare import (
    ChangedArgument,
    blank,
    call,
    describe,
    describe_arguments,
    describe_error,
    difference,
    plain,
)
from ssm_kit.exercises.verdict import Rows, Verdict


@dataclass(frozen=True)
class Case:
    """One hidden test: a name for it, and the arguments that the reader's function gets."""

    label: str
    arguments: tuple


@dataclass(frozen=True)
class Slip:
    """A wrong answer that many people give, as a number or as a function, and the hint that it deserves."""

    wrong: Any
    hint: str


@dataclass(frozen=True, kw_only=True)
class Exercise(ABC):
    """What all exercises have: `text` is Markdown with $maths$; `insight` is one sentence for a right answer."""

    id: str
    title: str
    text: str
    hint: str
    insight: str
    kind: ClassVar[str]

    @abstractmethod
    def judge(self, answer: Any) -> Verdict:
        """The verdict on an answer. Never raises on an answer's account."""

    @property
    @abstractmethod
    def answer(self) -> str:
        """The name that the reader's answer has in the notebook."""

    @property
    @abstractmethod
    def stub(self) -> str:
        """Source of the cell that the reader fills in."""

    @property
    @abstractmethod
    def solution(self) -> str:
        """Source of the folded cell."""

    @property
    def markdown(self) -> str:
        """Source of the text cell above the stub."""
        text = textwrap.dedent(self.text).strip()
        return f"### Exercise {self.id} · {self.title}\n\n*{self.kind.capitalize()}.* {text}"

    def _verdict(self, status: Any, rows: Rows) -> Verdict:
        return Verdict(f"Exercise {self.id} · {self.title}", status, rows)

    def _not_attempted(self) -> Verdict:
        return self._verdict("not attempted", (("next", "replace the three dots by your answer, then run the cell."),))

    def _right(self) -> Verdict:
        return self._verdict("right", (("insight", self.insight),))


@dataclass(frozen=True, kw_only=True)
class Number(Exercise):
    """One number. `working` is the expression that gives it and `factors` says what stands in it, both as the folded
    solution prints them. `within` is an absolute tolerance.
    """

    variable: str
    working: str
    factors: str
    unit: str
    within: float
    slips: tuple[Slip, ...]
    kind: ClassVar[str] = "pen and paper"

    @property
    def answer(self) -> str:
        return self.variable

    @property
    def value(self) -> float:
        # Evaluated, so that the working that the reader sees is the one that marks the answer.
        return float(eval(self.working, {"np": np}))

    @property
    def stub(self) -> str:
        return f'{self.answer} = ...  # {self.unit}\n\ncheck("{self.id}", {self.answer})'

    @property
    def solution(self) -> str:
        return f'{self.answer} = {self.working}  # {self.factors}\n\ncheck("{self.id}", {self.answer})'

    def judge(self, answer: Any) -> Verdict:
        if blank(answer):
            return self._not_attempted()
        given = plain(answer)
        if isinstance(given, bool | str) or np.ndim(given) or not np.issubdtype(np.asarray(given).dtype, np.number):
            return self._not_yet(describe(given), f"The answer is one plain number, in {self.unit}.")
        if np.iscomplexobj(given) or not np.isfinite(given):
            return self._not_yet(describe(given), "The answer is one finite real number.")
        number = float(given)
        if abs(number - self.value) <= self.within:
            return self._right()
        near = [slip for slip in self.slips if np.isclose(number, slip.wrong, rtol=5e-4, atol=0)]
        hint = min(near, key=lambda slip: abs(number - slip.wrong)).hint if near else self.hint
        direction = "too large" if number > self.value else "too small"
        return self._not_yet(f"{number:.8g}, which is {direction}", hint)

    def _not_yet(self, got: str, hint: str) -> Verdict:
        return self._verdict("not yet", (("got", got), ("hint", hint)))


@dataclass(frozen=True, kw_only=True)
class _Function(Exercise):
    """A function, called on every case. The reference doubles as the folded solution; its docstring is the stub's."""

    reference: Callable
    cases: Callable[[], list[Case]]

    @property
    def answer(self) -> str:
        return self.reference.__name__

    @property
    def solution(self) -> str:
        return f'{inspect.getsource(self.reference).strip()}\n\n\ncheck("{self.id}", {self.answer})'

    @property
    def stub(self) -> str:
        source = inspect.getsource(self.reference)
        docstring = ast.parse(source).body[0].body[0]  # type: ignore[attr-defined]
        head = "\n".join(source.splitlines()[: docstring.end_lineno])
        return f'{head}\n    ...\n\n\ncheck("{self.id}", {self.answer})'

    @abstractmethod
    def complaint(self, case: Case, got: Any) -> Rows:
        """What is wrong with this result, as rows of the verdict; nothing where it is right."""

    def judge(self, answer: Any) -> Verdict:
        if blank(answer):
            return self._not_attempted()
        if not callable(answer):
            advice = f'Hand over the function itself, not its result: check("{self.id}", {self.answer})'
            return self._verdict("not yet", (("got", describe(answer)), ("hint", advice)))
        for number, case in enumerate(self.cases()):
            try:
                got = call(answer, case.arguments)
            except NotImplementedError:
                return self._not_attempted()
            except ChangedArgument:
                advice = "Your function changes the array that it is given. Work on a copy, or make a new array."
                return self._not_yet(case, (("hint", advice),))
            except Exception as error:
                return self._not_yet(case, (("error", describe_error(answer, error)), ("hint", self.hint)))
            if number == 0 and blank(got):
                return self._not_attempted()
            if rows := self.complaint(case, got):
                return self._not_yet(case, rows)
        return self._right()

    def _not_yet(self, case: Case, rows: Rows) -> Verdict:
        given = f"{describe_arguments(self.reference, case.arguments)} ({case.label})"
        return self._verdict("not yet", (("called with", given), *rows))


@dataclass(frozen=True, kw_only=True)
class Code(_Function):
    """A function whose result is known: compared with the reference, within `tolerance` of its largest value."""

    slips: tuple[Slip, ...]
    tolerance: float = 1e-6
    kind: ClassVar[str] = "code"

    def complaint(self, case: Case, got: Any) -> Rows:
        found = difference(self.reference(*case.arguments), got, self.tolerance)
        if not found:
            return ()
        return (("expected", found[0]), ("got", found[1]), ("hint", self._hint(case, got)))

    def _hint(self, case: Case, got: Any) -> str:
        """The hint of the common slip that gives this very result, else the general one."""
        for slip in self.slips:
            try:
                if difference(plain(call(slip.wrong, case.arguments)), got, self.tolerance) is None:
                    return slip.hint
            except Exception:  # this slip cannot be made on this case
                continue
        return self.hint


@dataclass(frozen=True, kw_only=True)
class BreakIt(_Function):
    """A function that must return a counterexample: `verify(arguments, result)` says what is wrong with it, or ""."""

    verify: Callable[[tuple, Any], str]
    kind: ClassVar[str] = "break it"

    def complaint(self, case: Case, got: Any) -> Rows:
        try:
            problem = self.verify(case.arguments, plain(got))
        except Exception as error:  # a result of the wrong type or shape
            problem = f"the result cannot be used ({type(error).__name__}: {error})"
        return (("problem", problem), ("hint", self.hint)) if problem else ()
