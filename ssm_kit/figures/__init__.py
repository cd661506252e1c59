"""Interactive figures: each is a widget whose sliders move it in the browser, with or without a kernel."""

from .complex_pole import ComplexPole
from .cost_vs_length import CostVsLength
from .discretization import Discretization
from .linear_recurrence import LinearRecurrence
from .quiz import Quiz
from .running_state import RunningState
from .two_faces import TwoFaces

__all__ = ["ComplexPole", "CostVsLength", "Discretization", "LinearRecurrence", "Quiz", "RunningState", "TwoFaces"]
