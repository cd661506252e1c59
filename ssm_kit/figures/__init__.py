"""Interactive figures: each is a widget whose sliders move it in the browser, with or without a kernel."""

from .discretization import Discretization
from .quiz import Quiz

__all__ = ["Discretization", "Quiz"]
