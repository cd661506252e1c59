"""The committed bundles and the theme inside them."""

import re

import pytest

from ssm_kit import colours
from ssm_kit.figures.base import DIST
from tools import figures as builder

SRC = DIST.parent / "src"
VIEWS = sorted(path.stem for path in (SRC / "views").glob("*.js"))


def test_bundles_are_what_the_sources_build(capfd):
    assert builder.main(["--check"]) == 0, capfd.readouterr().err
    assert sorted(path.stem for path in DIST.glob("*.js")) == VIEWS


@pytest.mark.parametrize("view", VIEWS)
def test_bundles_need_nothing_else(view):
    """One module that imports nothing and fetches nothing, and carries the licence of the code that it contains."""
    code = (DIST / f"{view}.js").read_text("utf-8")
    assert not re.search(r"\bimport\s*[({\"']|\bfetch\(|@import|src=", code)
    assert set(re.findall(r"https?://[^\"'`\s]+", code)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xhtml",
        "http://www.w3.org/1999/xlink",
        "http://www.w3.org/XML/1998/namespace",
        "http://www.w3.org/2000/xmlns/",
    }
    assert ("d3-selection" in code) == ("Permission to use, copy, modify, and/or distribute" in code)
    assert len(code) < 80_000


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    """WCAG 2 contrast ratio."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(("block", "paper"), [(0, "#ffffff"), (1, "#121212"), (1, "#1f1f1f")])
def test_series_colours_are_readable_as_text(block, paper):
    """In the light theme on white; in the dark one on the papers of the book and of JupyterLab or VS Code."""
    css = (SRC / "shared" / "theme.css").read_text("utf-8")
    names = "state|input|attention|warning|zoh|bilinear|euler|mamba|accent"
    found = [dict(re.findall(rf"--({names}): (#\w{{6}})", body)) for body in re.findall(r"\{([^}]*--zoh[^}]*)\}", css)]
    assert set(found[block]) == set(names.split("|"))
    assert {name: round(contrast(c, paper), 2) for name, c in found[block].items() if contrast(c, paper) < 4.5} == {}


def test_still_pictures_have_the_colours_of_the_light_theme():
    css = (SRC / "shared" / "theme.css").read_text("utf-8")
    light = dict(re.findall(r"--(\w+): (#\w{6})", css[: css.index('html[data-theme="dark"]')]))
    names = ["STATE", "INPUT", "ATTENTION", "WARNING", "ZOH", "BILINEAR", "EULER", "MAMBA", "RULE"]
    assert {name: light[name.lower()] for name in names} == {name: getattr(colours, name) for name in names}
    # ZOH, whose states the figures show as the state, is the one rule that shares a colour.
    assert len({light[name.lower()] for name in names}) == len(names) - 1
