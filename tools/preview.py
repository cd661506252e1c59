"""Show figures in a browser without kernel or book: `python -m tools.preview [--output FILE] [Figure ...]`.

Writes one page that works from disk, with a stand-in for the widget manager. Build the bundles first.
"""

import argparse
import json
import webbrowser
from math import log
from pathlib import Path
from typing import Any

from anywidget import AnyWidget

import ssm_kit.figures
from ssm_kit.figures.base import Figure, decimals

TEMPLATE = Path(__file__).with_name("preview.html")
QUIZ = {
    "question": "The step Δ grows while a = −1 stays. What happens to Ā = exp(aΔ)?",
    "options": [
        ("It falls towards 0", True, "exp(−Δ) shrinks, so each step forgets more of the old state."),
        ("It rises towards 1", False, "That is the limit Δ → 0: a tiny step keeps almost everything."),
        ("It does not change", False, "Ā depends on the product aΔ, so a larger Δ moves it."),
    ],
}


def slider_settings(name: str, trait: Any) -> dict[str, Any]:
    """What the page needs to draw one slider."""
    label, step, base = trait.metadata["slider"]
    low, high = (log(v, base) if base else v for v in (trait.min, trait.max))
    scale = {"low": low, "high": high, "step": step, "base": base, "decimals": decimals(step)}
    return {"name": name, "label": label, **scale}


def description(figure: Figure) -> dict[str, Any]:
    """One figure's bundle, synced values and sliders."""
    own = set(figure.trait_names(sync=True)) - set(AnyWidget.class_trait_names())
    state = {name: getattr(figure, name) for name in sorted(own) if not name.startswith(("_anywidget", "_esm"))}
    sliders = [slider_settings(n, t) for n, t in figure._parameters.items() if "slider" in t.metadata]
    return {
        "name": type(figure).__name__,
        "code": figure._esm,
        "state": state,
        "sliders": sliders,
    }


def example(name: str) -> Figure:
    """A figure as it starts, by the name of its class."""
    return getattr(ssm_kit.figures, name)(**(QUIZ if name == "Quiz" else {}))


def page(names: list[str]) -> str:
    """The HTML page with these figures."""
    data = json.dumps([description(example(name)) for name in names]).replace("</", "<\\/")
    return TEMPLATE.read_text("utf-8").replace("FIGURES", data)


def main() -> None:
    """Write the page and open it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", nargs="*", default=ssm_kit.figures.__all__, metavar="Figure")
    parser.add_argument("--output", type=Path, default=Path("_build/figures.html"))
    options = parser.parse_args()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(page(options.figures), "utf-8")
    webbrowser.open(options.output.resolve().as_uri())


if __name__ == "__main__":
    main()
