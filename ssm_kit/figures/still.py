"""A figure as a small PNG file, the same bytes every time."""

import io
from collections.abc import Callable
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from ssm_kit import colours

# The theme's colours on white; a sans-serif font that matplotlib carries along, so that every machine draws the same.
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.edgecolor": colours.QUIET,
    "axes.labelcolor": colours.INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": colours.QUIET,
    "ytick.color": colours.QUIET,
    "legend.frameon": False,
    "figure.facecolor": "white",
}


def png(draw: Callable[[Figure], None]) -> bytes:
    """Run `draw` on an empty canvas of 816 by 624 pixels and return a PNG of 64 colours."""
    with rc_context(STYLE):
        figure = Figure(figsize=(6.8, 5.2), dpi=120, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        draw(figure)
        canvas.draw()
    size = canvas.get_width_height()
    image = Image.frombuffer("RGBA", size, canvas.buffer_rgba(), "raw", "RGBA", 0, 1).convert("RGB")
    out = io.BytesIO()
    image.quantize(64, dither=Image.Dither.NONE).save(out, "png", optimize=True)
    return out.getvalue()
