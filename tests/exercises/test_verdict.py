"""What a verdict looks like, and what a wrong id says."""

import pytest

from ssm_kit.exercises import check


def test_right():
    assert repr(check("0.1", 2_129_920_000)) == (
        "Exercise 0.1 · A cache of small numbers: right\n"
        "  insight: About 2 GiB. In bf16 and with a key–value head for every query head it would\n"
        "           be eight times as much."
    )


def test_not_yet():
    verdict = check("0.2", lambda x: x)
    assert not verdict.right
    assert [label for label, _ in verdict.rows] == ["called with", "expected", "got", "hint"]
    assert dict(verdict.rows)["called with"] == "x: shape (6, 2), float64 (random)"
    assert dict(verdict.rows)["expected"].startswith("shape (6, 2), float64; at [")


def test_a_wrong_shape_is_named():
    rows = dict(check("2.4", lambda x, K: x[:2]).rows)
    assert rows["expected"] == "shape (5,), float64"
    assert rows["got"].startswith("[")  # a short vector is shown itself


def test_markdown_says_the_same_as_text():
    verdict = check("0.1", 1.98)
    assert verdict._repr_markdown_() == (
        "**Exercise 0.1 · A cache of small numbers: not yet**\n"
        "\n"
        "- *got:* 1.98, which is too small\n"
        "- *hint:* That is the size in GiB. Give it in bytes."
    )


@pytest.mark.parametrize("unknown", ["9.9", "", "0", 2.3, None])
def test_an_unknown_exercise_lists_the_known_ones(unknown):
    with pytest.raises(ValueError, match=r"exercise_id: expected one of 0\.1, 0\.2, .*2\.6; got "):
        check(unknown, 1)
