"""Digits read pixel by pixel, for models of long sequences: drawn from fonts, since no data set comes with torch."""

import functools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssm_kit.lab.tasks.task import Batch, Task, asked, integers, require

FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSerif", "DejaVuSerif-Italic",
    "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "cmr10", "cmb10", "cmss10", "cmtt10",
)  # fmt: skip
"""All come with matplotlib."""

CELL = 32
"""Pixels a side at which a digit is drawn, before it is turned and made small."""

LEVELS = 17


@dataclass(frozen=True)
class SequentialDigits(Task):
    """An image of a digit, one pixel a token, row by row: name the digit after the last pixel.

    The images have the format of scikit-learn's `load_digits` (8 × 8 pixels of 17 grey levels), but they are not
    handwriting: they are drawn from thirteen fonts, each turned by up to 15°, slanted, scaled by 0.8 to 1.2, shifted
    by up to a tenth of the image, with noise of one level in ten. The nearest class mean
    names 61 % of them, a small convolutional network 97 %. They serve to compare models that read pixels, and their
    accuracies say nothing about MNIST. For models that read numbers, `inputs / 16` is the brightness.

    Raises:
        ValueError: a vocabulary other than 17, or a length that is no square of 4, 8, 16 or 32 pixels a side.
    """

    vocab_size: int = LEVELS
    length: int = 64

    def __post_init__(self) -> None:
        require(self.vocab_size == LEVELS, "vocab_size", "17, the grey levels", self.vocab_size)
        require(self.length in (16, 64, 256, 1024), "length", "16, 64, 256 or 1024 pixels", self.length)

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """Draw `size` images, digits and fonts equally likely."""
        digits = integers(0, 10, (size, 1), generator)
        fonts = integers(0, len(FONTS), (size, 1), generator)
        drawn = glyphs().to(generator.device)[fonts[:, 0], digits[:, 0], None]  # (B, 1, 32, 32)
        grid = F.affine_grid(_movements(size, generator), list(drawn.shape), align_corners=False)
        images = F.adaptive_avg_pool2d(F.grid_sample(drawn, grid, align_corners=False), math.isqrt(self.length))
        noise = torch.randn(images.shape, generator=generator, device=generator.device)
        levels = ((images + 0.1 * noise) * (LEVELS - 1)).round().clamp(0, LEVELS - 1)
        last = torch.full_like(digits, self.length - 1)
        return asked(levels.flatten(1).long(), last, digits)


def _movements(size: int, generator: torch.Generator) -> Tensor:
    """Random rotations, slants, scales and shifts, (B, 2, 3)."""
    angle, slant, scale, right, down = (
        2 * torch.rand(5, size, generator=generator, device=generator.device) - 1
    ).unbind()
    angle, scale = math.radians(15) * angle, 1 / (1 + 0.2 * scale)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    rows = [cos, 0.2 * slant * cos - sin, 0.2 * right, sin, 0.2 * slant * sin + cos, 0.2 * down]
    return torch.stack(rows, dim=1).view(size, 2, 3)


@functools.cache
def glyphs() -> Tensor:
    """The ten digits in every font, (fonts, 10, 32, 32) float32: 0 is paper, 1 is ink."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as MatplotlibPath
    from matplotlib.textpath import TextPath

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    figure = Figure(figsize=(10, len(FONTS)), dpi=CELL)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 10), ylim=(len(FONTS), 0))
    axes.set_axis_off()
    for row, font in enumerate(FONTS):
        for digit in range(10):
            path = TextPath((0, 0), str(digit), size=1, prop=FontProperties(fname=folder / f"{font}.ttf"))
            box = path.get_extents()
            centred = path.vertices - [(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2]
            upright = centred * [1, -1] * 0.75 / box.height + [digit + 0.5, row + 0.5]
            axes.add_patch(PathPatch(MatplotlibPath(upright, path.codes), facecolor="black", linewidth=0))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    ink = 1 - np.asarray(canvas.buffer_rgba())[..., 0].astype(np.float32) / 255  # (32 · fonts, 320)
    return torch.from_numpy(ink).unflatten(0, (len(FONTS), CELL)).unflatten(2, (10, CELL)).transpose(1, 2).contiguous()
