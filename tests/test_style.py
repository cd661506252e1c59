"""The plots' style has the live figures' colours, and ink that can be read on its white card."""

import matplotlib.pyplot as plt
from matplotlib.colors import to_hex, to_rgb

from ssm_kit import colours


def settings():
    with plt.style.context("ssm_kit.book"):
        return dict(plt.rcParams)


def test_the_cycle_is_the_theme():
    cycle = [to_hex(entry["color"]) for entry in settings()["axes.prop_cycle"]]
    expected = ["STATE", "ATTENTION", "BILINEAR", "MAMBA", "INPUT", "QUIET"]
    assert cycle == [getattr(colours, name) for name in expected]


def test_text_lines_and_grid_are_the_theme():
    style = settings()
    assert to_hex("#" + style["text.color"].lstrip("#")) == colours.INK
    assert to_hex("#" + style["axes.labelcolor"].lstrip("#")) == colours.INK
    for name in ("axes.edgecolor", "xtick.color", "ytick.color"):
        assert to_hex("#" + style[name].lstrip("#")) == colours.QUIET
    assert to_hex("#" + style["grid.color"].lstrip("#")) == colours.RULE
    assert style["figure.facecolor"] == style["axes.facecolor"] == style["savefig.facecolor"] == "white"


def contrast_with_white(colour):
    """WCAG 2 contrast ratio."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 1.05 / (0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)


def test_every_colour_can_be_read_as_text():
    cycle = [entry["color"] for entry in settings()["axes.prop_cycle"]]
    assert all(contrast_with_white(colour) >= 4.5 for colour in (*cycle, colours.INK, colours.QUIET))
