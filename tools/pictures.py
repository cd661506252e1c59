"""The README's pictures of stored results: `make pictures` draws those again whose result or plot has changed."""

import hashlib
from pathlib import Path

import matplotlib.pyplot as plt
from PIL import Image

import ssm_kit
from ssm_kit import results
from ssm_kit.results import plots

NAMES = ("recall_capacity", "decoding")
FOLDER = Path(__file__).parents[1] / "book/_static/results"
PACKAGE = Path(ssm_kit.__file__).parent


def digest(name: str) -> str:
    """Of what a picture is made of: the result, the plotting code, colours and style."""
    code = sorted(Path(plots.__file__).parent.glob("*.py"))
    parts = [results.FOLDER / f"{name}.json", *code, PACKAGE / "colours.py", PACKAGE / "book.mplstyle"]
    return hashlib.sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()


def drawn_from(name: str) -> str | None:
    """The digest that a picture was made with; None without a picture."""
    file = FOLDER / f"{name}.png"
    if not file.exists():
        return None
    with Image.open(file) as picture:
        return picture.info.get("Source")


def draw(name: str) -> None:
    """Draw one again."""
    FOLDER.mkdir(exist_ok=True)
    figure = getattr(plots, name)(results.load(name))
    marked = {"Source": digest(name), "Software": None}
    figure.savefig(FOLDER / f"{name}.png", dpi=150, bbox_inches="tight", pad_inches=0.1, metadata=marked)
    plt.close(figure)


if __name__ == "__main__":
    for name in NAMES:
        if drawn_from(name) != digest(name):
            draw(name)
            print("drawn:", FOLDER / f"{name}.png")
