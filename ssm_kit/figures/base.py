"""The figure system: a drawing that runs in the browser, its sliders under it, a picture where neither runs.

A figure is one object. It *is* the AnyWidget that holds the parameters, and it shows `panel`: the drawing with its
sliders, linked in the browser, so that everything moves without a kernel. `book/contributing_figures.md` tells how
to write one.
"""

import base64
from collections.abc import Sequence
from decimal import Decimal
from math import log
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar, cast

import anywidget
import ipywidgets as W
import traitlets as T

VIEW = "application/vnd.jupyter.widget-view+json"
DIST = Path(__file__).parent / "dist"
NOISE = 5e-10  # less than half a unit of the ninth decimal, to which numbers are rounded


class ParameterError(T.TraitError, ValueError):
    """A figure's parameter was given a value that it cannot take."""


class _Parameter(T.TraitType):
    """What all parameters share: an error that names figure, parameter, what was expected and what came."""

    def error(self, obj, value, error=None, info=None):
        raise ParameterError(f"{type(obj).__name__}: {self.name} must be {self.info()}, got {value!r}")


class _Bounded(_Parameter):
    """A number from `min` to `max`, without the noise of slider arithmetic (-0.9999999999999996 for -1)."""

    min: float
    max: float

    def clean(self, obj, value):
        real = isinstance(value, Real) and not isinstance(value, bool)
        if not (real and self.min - NOISE <= value <= self.max + NOISE):
            self.error(obj, value)
        return round(float(value), 9)


class Number(_Bounded, T.Float):
    """A float within bounds."""

    def info(self):
        return f"a number from {self.min:g} to {self.max:g}"

    def validate(self, obj, value):
        return self.clean(obj, value)


class Whole(_Bounded, T.Int):
    """An int within bounds; 1024.0 (what a logarithmic slider reports) becomes 1024."""

    def info(self):
        return f"a whole number from {self.min} to {self.max}"

    def validate(self, obj, value):
        number = self.clean(obj, value)
        if not number.is_integer():
            self.error(obj, value)
        return int(number)


class Choice(_Parameter, T.Enum):
    """One of a few strings."""

    def info(self):
        return "one of " + ", ".join(repr(v) for v in self.values or ())


class Switch(_Parameter, T.Bool):
    """True or False."""

    def info(self):
        return "True or False"


class Text(_Parameter, T.Unicode):
    """A string."""

    def info(self):
        return "a string"


def slider(default: float, low: float, high: float, step: float, label: str, *, base: int | None = None) -> Any:
    """A number that readers move with a slider.

    Args:
        default, low, high: an `int` parameter when these and `step` are all ints, else a float one.
        step: distance between two positions; with `base`, between two exponents.
        label: plain Unicode with the unit, such as "Step Δ (s)".
        base: make the slider logarithmic; `low` and `high` must then be positive.
    """
    kind: Any = Whole if all(isinstance(v, int) for v in (default, low, high, step)) else Number
    return kind(default, min=low, max=high).tag(sync=True, slider=(label, step, base))


def choice(default: str, values: Sequence[str]) -> Any:
    """One of a few strings, which the view offers as radio buttons or a menu."""
    return Choice(tuple(values), default).tag(sync=True)


def toggle(default: bool) -> Any:
    """A switch, which the view offers as a checkbox."""
    return Switch(default).tag(sync=True)


def counter(high: int) -> Any:
    """Where a stepper stands: an int from 0 to `high`, starting at 0."""
    return Whole(0, min=0, max=high).tag(sync=True)


def text(default: str) -> Any:
    """A string that readers edit."""
    return Text(default).tag(sync=True)


def decimals(step: float) -> int:
    """Decimal places that tell two slider positions apart: 2 for 0.05."""
    return max(0, -int(Decimal(str(step)).as_tuple().exponent))


class Figure(anywidget.AnyWidget):
    """Subclasses name their bundle and the heights they take, declare parameters, and draw their still picture.

    Class attributes:
        bundle: file in `dist/` that draws the figure.
        heights: of the panel in CSS pixels when it is 720 and 358 pixels wide; pages reserve them in advance.
    """

    # Attributes and not class keywords: the traitlets of Colab refuse those.
    bundle: ClassVar[str]
    heights: ClassVar[tuple[int, int]]

    _ipython_display_ = None  # the one of ipywidgets 7 (Colab) would bypass _repr_mimebundle_
    _initial = T.Dict().tag(sync=True)  # what Reset goes back to
    _space = T.List(T.Int()).tag(sync=True)
    _parameters: ClassVar[dict[str, T.TraitType]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        if "bundle" in vars(cls):  # AnyWidget subclasses at run time (add_traits): that passes here too
            cls._esm = (DIST / cls.bundle).read_text("utf-8")
            cls._parameters = {
                name: trait
                for name, trait in vars(cls).items()
                if isinstance(trait, T.TraitType) and trait.metadata.get("sync") and not name.startswith("_")
            }
        super().__init_subclass__(**kwargs)

    def __init__(self, **parameters: Any) -> None:
        if unknown := sorted(set(parameters) - set(self._parameters)):
            raise ParameterError(
                f"{type(self).__name__} has no parameter {', '.join(unknown)}: it has {', '.join(self._parameters)}"
            )
        super().__init__(**parameters)
        self._space = list(self.space())
        self._initial = {name: getattr(self, name) for name in self._parameters}
        rows = [self._slider(n, t) for n, t in self._parameters.items() if "slider" in t.metadata]
        self.panel = W.VBox([self, *rows]).add_class("ssmfig-panel")

    def space(self) -> tuple[int, int]:
        """Height to reserve, in CSS pixels, at 720 and 358 pixels of width."""
        return self.heights

    def _slider(self, name: str, trait: Any) -> W.Widget:
        label, step, base = trait.metadata["slider"]
        options = {"value": getattr(self, name), "description": label, "step": step}
        if base:
            exponents = {"base": base, "min": log(trait.min, base), "max": log(trait.max, base)}
            row = W.FloatLogSlider(**options, **exponents, readout_format=",.0f")
        elif isinstance(trait, Whole):
            row = W.IntSlider(**options, min=trait.min, max=trait.max)
        else:
            row = W.FloatSlider(**options, min=trait.min, max=trait.max, readout_format=f".{decimals(step)}f")
        # From figure to slider: on a page without kernel the link starts by copying this way.
        row._link = W.jslink((self, name), (row, "value"))  # lives as long as its slider
        return row

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{n}={getattr(self, n)!r}' for n in self._parameters)})"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        data, metadata = cast(tuple, super()._repr_mimebundle_(**kwargs))  # metadata: Colab's widget manager
        data[VIEW] = {**data[VIEW], "model_id": self.panel.model_id}
        return {**data, "text/plain": repr(self), **self.fallback()}, metadata

    def fallback(self) -> dict[str, str]:
        """What GitHub, PDF and readers without JavaScript get instead: MIME type to content."""
        from .still import png

        return {"image/png": base64.b64encode(png(self.draw)).decode()}

    def draw(self, canvas: Any) -> None:
        """Draw the still picture on an empty matplotlib figure."""
        raise NotImplementedError
