"""Every exercise: its solution is right, its slips get their hints, and nothing near the solution passes."""

import ast

import numpy as np
import pytest

from ssm_kit.exercises import chapter, chapters, check
from ssm_kit.exercises.compare import blank, call, plain
from ssm_kit.exercises.exercise import BreakIt, Code, Number

ALL = [exercise for number in chapters() for exercise in chapter(number)]
NUMBERS = [e for e in ALL if isinstance(e, Number)]
FUNCTIONS = [e for e in ALL if not isinstance(e, Number)]
CODE = [e for e in ALL if isinstance(e, Code)]
BREAK_IT = [e for e in ALL if isinstance(e, BreakIt)]


def identify(exercise):
    return exercise.id if hasattr(exercise, "id") else None


def cell(source):
    """What a notebook cell leaves behind."""
    space = {"np": np, "check": check}
    exec(source, space)
    return space


def verdict_of(source):
    """The verdict that the last line of a cell shows."""
    tree = ast.parse(source)
    tree.body[-1] = ast.Assign([ast.Name("shown", ast.Store())], tree.body[-1].value)
    return cell(ast.unparse(ast.fix_missing_locations(tree)))["shown"]


@pytest.mark.parametrize("number", chapters())
def test_a_chapter_has_a_number_two_functions_and_something_to_break(number):
    kinds = [exercise.kind for exercise in chapter(number)]
    assert [exercise.id for exercise in chapter(number)] == [f"{number}.{i}" for i in range(1, len(kinds) + 1)]
    assert kinds.count("pen and paper") >= 1
    assert kinds.count("code") >= 2
    assert kinds.count("break it") >= 1


@pytest.mark.parametrize("exercise", ALL, ids=identify)
def test_the_folded_solution_is_right(exercise):
    verdict = verdict_of(exercise.solution)
    assert verdict.status == "right", verdict
    assert exercise.insight in dict(verdict.rows).values()


@pytest.mark.parametrize("exercise", ALL, ids=identify)
def test_the_stub_is_not_attempted_and_shows_no_solution(exercise):
    assert verdict_of(exercise.stub).status == "not attempted"
    for line in exercise.solution.splitlines():
        if line.strip() and line not in exercise.stub.splitlines():
            break
    else:
        pytest.fail("the stub contains the whole solution")


@pytest.mark.parametrize("exercise", ALL, ids=identify)
def test_text_is_plain_markdown_with_balanced_maths(exercise):
    assert exercise.markdown.startswith(f"### Exercise {exercise.id} · {exercise.title}\n")
    assert exercise.markdown.count("$") % 2 == 0
    assert not any(mark in exercise.markdown for mark in ("```{", ":::", "{math}", "\n    "))
    assert exercise.insight.endswith(".")
    assert exercise.hint not in exercise.markdown


@pytest.mark.parametrize("exercise", NUMBERS, ids=identify)
def test_a_number_is_marked_within_its_tolerance_only(exercise):
    for right in (exercise.value, exercise.value + 0.9 * exercise.within, np.float32(exercise.value)):
        assert check(exercise.id, right).right
    for wrong in (exercise.value + 1.1 * exercise.within, exercise.value - 1.1 * exercise.within, -exercise.value, 0):
        assert check(exercise.id, wrong).status == "not yet"


@pytest.mark.parametrize("exercise", NUMBERS, ids=identify)
def test_a_wrong_number_is_not_told_the_right_one(exercise):
    for wrong in (1.2345, *(slip.wrong for slip in exercise.slips)):
        hint = dict(check(exercise.id, wrong).rows)["hint"]
        assert f"{exercise.value:.3g}" not in hint
        assert f"{exercise.value:,.0f}" not in hint or exercise.value < 1000


@pytest.mark.parametrize("answer", ["16 GiB", True, [1, 2], np.zeros(2), {}, float("nan"), float("inf"), 1j, len])
@pytest.mark.parametrize("exercise", NUMBERS, ids=identify)
def test_what_is_no_number_gets_a_verdict(exercise, answer):
    assert check(exercise.id, answer).status == "not yet"


@pytest.mark.parametrize(
    ("exercise", "slip"), [(e, s) for e in NUMBERS + CODE for s in e.slips], ids=lambda v: identify(v) or v.hint[:40]
)
def test_a_common_slip_gets_its_own_hint(exercise, slip):
    verdict = check(exercise.id, slip.wrong)
    assert verdict.status == "not yet"
    assert dict(verdict.rows)["hint"] == slip.hint


def perturbations(result):
    """The right result, spoiled in each of its entries, in its shape, its order and its size."""
    values = result if isinstance(result, tuple) else (result,)
    for i, value in enumerate(values):
        value = np.asarray(value)
        for where in np.ndindex(value.shape):
            spoiled = value.astype(np.result_type(value, float))
            spoiled[where] = spoiled[where] + 1e-3 * max(1.0, abs(spoiled[where])) if np.isfinite(spoiled[where]) else 0
            yield (*values[:i], spoiled, *values[i + 1 :])
        yield (*values[:i], value[None], *values[i + 1 :])
        yield (*values[:i], np.full(value.shape, np.inf), *values[i + 1 :])
    yield values[:-1]


@pytest.mark.parametrize("exercise", CODE, ids=identify)
def test_no_spoiled_result_passes_on_any_case(exercise):
    for case in exercise.cases():
        right = exercise.reference(*case.arguments)
        assert exercise.complaint(case, right) == ()
        if np.size(right) > 200:
            continue  # the same checks as on the short cases
        for spoiled in perturbations(right):
            answer = spoiled if isinstance(right, tuple) else spoiled[0] if spoiled else None
            assert exercise.complaint(case, answer), (case, answer)


@pytest.mark.parametrize("exercise", CODE, ids=identify)
def test_torch_may_be_used(exercise):
    import torch

    def through_torch(*arguments):
        result = exercise.reference(*arguments)
        return tuple(map(torch.as_tensor, result)) if isinstance(result, tuple) else torch.as_tensor(result)

    assert check(exercise.id, through_torch).right


def test_a_function_that_takes_only_tensors_is_given_tensors():
    import torch

    def attention(q, k, v):
        return torch.einsum("d,sd->s", q / q.size(-1) ** 0.5, k).softmax(-1) @ v

    assert check("0.3", attention).right


@pytest.mark.parametrize("exercise", FUNCTIONS, ids=identify)
def test_an_unfinished_function_is_not_attempted(exercise):
    def raises(*_):
        raise NotImplementedError

    for answer in (None, ..., lambda *_: None, lambda *_: ..., raises):
        assert check(exercise.id, answer).status == "not attempted"


@pytest.mark.parametrize("exercise", FUNCTIONS, ids=identify)
def test_no_answer_can_raise(exercise):
    def crash(*_):
        return {}["missing"]

    ragged = [[1.0, 2.0], [3.0]]
    results = ["text", {}, object(), ragged, [ragged, [1]], (1, 2, 3), np.array(["a"]), len, np.zeros((2, 0)), True, 1j]
    answers = [crash, lambda: 1, 3, "text", [1, 2], *(lambda *_, result=result: result for result in results)]
    for answer in answers:
        verdict = check(exercise.id, answer)
        assert verdict.status == "not yet"
        assert dict(verdict.rows)["hint"]
        assert repr(verdict) == repr(check(exercise.id, answer))
        assert " at 0x" not in repr(verdict)


@pytest.mark.parametrize(
    "exercise", [e for e in CODE if isinstance(e.cases()[0].arguments[0], np.ndarray)], ids=identify
)
def test_writing_into_an_argument_is_noticed(exercise):
    def careless(*arguments):
        result = exercise.reference(*arguments)
        arguments[0][0] += 1
        return result

    assert "changes the array" in dict(check(exercise.id, careless).rows)["hint"]


def test_the_line_that_failed_is_shown():
    def unlucky(x):
        return x["a"] + 1

    error = dict(check("0.2", unlucky).rows)["error"]
    assert error.startswith("IndexError: ")
    assert error.endswith('in the line `return x["a"] + 1`')


WRONG_BREAKS = {
    "0.5": [
        (lambda a: ([1.0, 0.0], [1.0, 0.0]), "differs by 0 at most"),
        (lambda a: ([1.0, 0.0], [0.0, 0.5]), "tells the two apart"),
        (lambda a: ([1.0, 0.0], [0.0, 1.0, 0.0]), "one shape"),
        (lambda a: ([0.05, 0.0], [0.0, 0.05 * a]), "0.1 is asked for"),
        (lambda a: ([np.nan, 0.0], [0.0, a]), "finite"),
    ],
    "1.5": [
        (lambda factor: np.diag([0.95, 0.9]), "the longest state"),
        (lambda factor: np.array([[0.9, factor], [factor, 0.9]]), "an eigenvalue"),
        (lambda factor: np.array([[0.9, 3.0], [0.0, 0.9]]), "the longest state"),
        (lambda factor: np.array([[0.9j, 1e4], [0.0, 0.9]]), "real"),
        (lambda factor: np.eye(3), "(3, 3)"),
        (lambda factor: np.full((2, 2), np.nan), "finite"),
    ],
    "1.6": [
        (lambda a, b, n: (np.zeros(n), np.zeros(n)), "the message survives"),
        (lambda a, b, n: (np.full(n, -2.0), np.full(n, 2.0)), "between -1 and 1"),
        (lambda a, b, n: (np.full(n, np.nan), np.zeros(n)), "between -1 and 1"),
        (lambda a, b, n: np.zeros(n), "return two fillers"),
        (lambda a, b, n: (np.zeros(n + 1), np.zeros(n + 1)), "shape"),
    ],
    "2.6": [
        (lambda a: 1e-6, "still fades"),
        (lambda a: 1e6, "come nearer"),
        (lambda a: 2 / abs(a.real) * 1.01, ""),
        (lambda a: -1.0, "above 0"),
        (lambda a: np.array([1.0]), "one real number"),
        (lambda a: a, "one real number"),
    ],
}


@pytest.mark.parametrize("exercise", BREAK_IT, ids=identify)
def test_what_does_not_break_the_claim_is_refused_with_its_reason(exercise):
    for answer, reason in WRONG_BREAKS[exercise.id]:
        verdict = check(exercise.id, answer)
        assert verdict.status == "not yet"
        assert reason in dict(verdict.rows)["problem"]
        assert dict(verdict.rows)["hint"] == exercise.hint


def test_references_do_not_change_their_arguments_and_are_deterministic():
    for exercise in FUNCTIONS:
        for case in exercise.cases():
            first, second = (plain(call(exercise.reference, case.arguments)) for _ in range(2))
            assert not blank(first)
            np.testing.assert_array_equal(
                np.hstack([np.ravel(v) for v in first]) if isinstance(first, tuple) else first,
                np.hstack([np.ravel(v) for v in second]) if isinstance(second, tuple) else second,
            )
