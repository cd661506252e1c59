"""The plots of stored results draw every series of the record, with its numbers, and refuse what is not there."""

import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest

from ssm_kit import results
from ssm_kit.results import plots
from tools import pictures


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_hippo_memory():
    result = results.load("hippo_memory")
    figure = plots.hippo_memory(result, "float32")
    for panel, tables in zip(figure.axes, result["data"].values(), strict=True):
        drawn = {line.get_label(): line.get_ydata() for line in panel.lines}
        assert drawn.keys() == tables["float32"].keys()
        for name, entry in tables["float32"].items():
            np.testing.assert_allclose(drawn[name], np.mean(entry["error"], 0))


def test_scan_precision():
    result = results.load("scan_precision")
    (axes,) = plots.scan_precision(result).axes
    drawn = {line.get_label(): line.get_ydata() for line in axes.lines}
    assert drawn.keys() == result["data"].keys()
    assert np.isnan(drawn["quotients of running products"][-1])
    np.testing.assert_allclose(drawn["float32 loop"], np.mean(result["data"]["float32 loop"]["30 steps"], 1))


def test_series_differ_in_colour_or_dash():
    for figure in (plots.hippo_memory(results.load("hippo_memory")),):
        for axes in figure.axes:
            looks = [(line.get_color(), line.get_linestyle()) for line in axes.lines]
            assert len(set(looks)) == len(looks)


def test_unknown_choices():
    with pytest.raises(ValueError, match=r"^precision: expected one of float32, bfloat16; got 'int8'"):
        plots.hippo_memory(results.load("hippo_memory"), "int8")
    with pytest.raises(ValueError, match=r"^lasting: expected one of 1000 steps, .* got 'ever'"):
        plots.scan_precision(results.load("scan_precision"), "ever")


def test_plots_need_no_widgets():
    """As on a GPU machine, where nobody looks at figures: an import of what `sys.modules` holds as None fails."""
    code = "import sys; sys.modules.update(anywidget=None, ipywidgets=None); import ssm_kit.results.plots"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", pictures.NAMES)
def test_pictures_in_the_readme_show_the_stored_result(name):
    assert pictures.drawn_from(name) == pictures.digest(name), "out of date: make pictures"
    assert f"book/_static/results/{name}.png" in (pictures.FOLDER.parents[2] / "README.md").read_text(encoding="utf-8")


def test_a_picture_is_drawn_once(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "FOLDER", tmp_path / "new")
    assert pictures.drawn_from("decoding") is None
    pictures.draw("decoding")
    assert pictures.drawn_from("decoding") == pictures.digest("decoding") != pictures.digest("recall_capacity")
