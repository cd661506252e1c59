"""What every figure inherits: parameters, errors, sliders, the still picture."""

import base64
import io
import json

import ipywidgets as W
import pytest
from PIL import Image

from ssm_kit.figures import Discretization, base
from ssm_kit.figures.base import Figure, choice, counter, decimals, slider, text, toggle


class Sample(Figure):
    """One parameter of every kind."""

    bundle = "discretization.js"
    heights = (300, 400)

    rate = slider(-1.0, -5.0, -0.1, 0.05, "Rate a (s⁻¹)")
    layers = slider(4, 0, 64, 1, "Layers")
    length = slider(1024, 2**8, 2**20, 1, "Length L", base=2)
    rule = choice("one", ("one", "two"))
    held = toggle(False)
    step = counter(10)
    words = text("to be")

    def draw(self, canvas):
        canvas.subplots().plot([0, self.rate])


def linked(figure):
    """The linked pairs (figure's trait, slider) under the drawing."""
    return {row._link.source[1]: row for row in figure.panel.children[1:]}


def test_parameters_are_read_set_and_shown():
    figure = Sample(rate=-2, rule="two")
    figure.length = 2**16
    assert (figure.rate, figure.length, figure.rule) == (-2.0, 65536, "two")
    assert repr(figure) == "Sample(rate=-2.0, layers=4, length=65536, rule='two', held=False, step=0, words='to be')"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"speed": 1}, "no parameter speed: it has rate, layers"),
        ({"rate": 1}, "rate must be a number from -5 to -0.1, got 1"),
        ({"rate": float("nan")}, "rate must be a number from -5 to -0.1, got nan"),
        ({"rate": "fast"}, "rate must be a number from -5 to -0.1, got 'fast'"),
        ({"layers": 2.5}, "layers must be a whole number from 0 to 64, got 2.5"),
        ({"layers": True}, "layers must be a whole number from 0 to 64, got True"),
        ({"length": float("inf")}, "length must be a whole number from 256 to 1048576, got inf"),
        ({"rule": "three"}, "rule must be one of 'one', 'two', got 'three'"),
        ({"held": "yes"}, "held must be True or False, got 'yes'"),
        ({"step": 11}, "step must be a whole number from 0 to 10, got 11"),
        ({"words": 3}, "words must be a string, got 3"),
    ],
)
def test_errors_name_figure_parameter_and_value(given, message):
    with pytest.raises(ValueError, match=f"Sample.*{message}"):
        Sample(**given)
    if "speed" not in given:
        (name, value), figure = given.popitem(), Sample()
        with pytest.raises(ValueError, match=message):
            setattr(figure, name, value)


def test_what_the_browser_reports_is_cleaned():
    """Sliders send -0.9999999999999996 for -1, and 1024.0000000000002 or 1024.0 for a power of two."""
    figure = Sample()
    figure.set_state({"rate": -0.9999999999999996, "length": 1024.0000000000002, "layers": 7.0})
    assert (figure.rate, figure.length, figure.layers) == (-1.0, 1024, 7)
    assert isinstance(figure.length, int)
    figure.rate = -0.1 + 1e-12
    assert figure.rate == -0.1


def test_sliders_fit_the_parameters():
    sliders = linked(Sample(length=4096))
    assert [type(row) for row in sliders.values()] == [W.FloatSlider, W.IntSlider, W.FloatLogSlider]
    rate, layers, length = sliders.values()
    assert (rate.min, rate.max, rate.step, rate.value, rate.description) == (-5, -0.1, 0.05, -1, "Rate a (s⁻¹)")
    assert rate.readout_format == ".2f"
    assert (layers.min, layers.max, layers.value) == (0, 64, 4)
    assert (length.base, length.min, length.max, length.step, length.value) == (2, 8, 20, 1, 4096)


def test_figure_is_the_source_of_each_link():
    """On a page without kernel a link starts by copying source to target: values set after construction must win."""
    figure = Sample()
    for name, row in linked(figure).items():
        assert row._link.source == (figure, name)
        assert row._link.target == (row, "value")


def test_reset_and_space_travel_with_the_state():
    figure = Sample(rate=-3)
    figure.rate = -1
    state = json.loads(json.dumps({k: figure.get_state()[k] for k in ("_initial", "_space", "rate")}))
    assert state["rate"] == -1
    assert state["_initial"] == {
        "rate": -3, "layers": 4, "length": 1024, "rule": "one", "held": False, "step": 0, "words": "to be"
    }  # fmt: skip
    assert state["_space"] == [300, 400]


def test_output_holds_view_text_and_picture():
    figure = Sample()
    data, _ = figure._repr_mimebundle_()
    assert data[base.VIEW]["model_id"] == figure.panel.model_id
    assert figure.panel.children[0] is figure
    assert data["text/plain"] == repr(figure)
    image = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert image.size == (816, 624)
    assert len(image.getcolors(256)) <= 64
    assert len(image.getcolors(256)) > 2


def test_picture_is_the_same_every_time_and_follows_the_parameters():
    first, again, other = (Discretization(delta=d).fallback()["image/png"] for d in (0.15, 0.15, 0.3))
    assert first == again != other


def test_run_time_subclasses_keep_the_declaration():
    """AnyWidget.add_traits makes a subclass per instance; it must not be taken for a new figure."""
    figure = Sample()
    assert type(figure) is not Sample
    assert type(figure).__name__ == "Sample"
    assert list(figure._parameters) == ["rate", "layers", "length", "rule", "held", "step", "words"]
    kinds = [type(figure._parameters[n]) for n in ("rate", "layers", "rule", "words")]
    assert kinds == [base.Number, base.Whole, base.Choice, base.Text]


@pytest.mark.parametrize(("step", "places"), [(0.05, 2), (0.1, 1), (1, 0), (0.005, 3), (10.0, 1)])
def test_decimals(step, places):
    assert decimals(step) == places
