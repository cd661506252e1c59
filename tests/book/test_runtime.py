"""The committed browser code is what its sources build to."""

from tools import runtime


def test_bundles_are_fresh():
    assert runtime.main(["--check"]) == 0
