"""What a verdict looks like, and what a wrong id says."""

import pytest

from ssm_kit.exercises import check


def test_right():
    assert repr(check("0.1", 17_179_869_184)) == (
        "Exercise 0.1 · The cache of an 8B model: right\n"
        "  insight: 131,072 bytes for every token, 16 GiB in all: a little more than the weights\n"
        "           of the model itself."
    )


def test_not_yet():
    verdict = check("0.3", lambda x: x)
    assert not verdict.right
    assert [label for label, _ in verdict.rows] == ["called with", "expected", "got", "hint"]
    assert dict(verdict.rows)["called with"] == "x: shape (6, 2), float64 (random)"
    assert dict(verdict.rows)["expected"].startswith("shape (6, 2), float64; at [")


def test_a_wrong_shape_is_named():
    rows = dict(check("2.4", lambda x, K: x[:2]).rows)
    assert rows["expected"] == "shape (5,), float64"
    assert rows["got"].startswith("[")  # a short vector is shown itself


def test_markdown_says_the_same_as_text():
    verdict = check("0.1", 16)
    assert verdict._repr_markdown_() == (
        "**Exercise 0.1 · The cache of an 8B model: not yet**\n"
        "\n"
        "- *got:* 16, which is too small\n"
        "- *hint:* That is the size in GiB. Give it in bytes."
    )


@pytest.mark.parametrize("unknown", ["9.9", "", "0", 2.3, None])
def test_an_unknown_exercise_lists_the_known_ones(unknown):
    with pytest.raises(ValueError, match=r"exercise_id: expected one of 0\.1, 0\.2, .*2\.6; got "):
        check(unknown, 1)
