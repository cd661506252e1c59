"""What each page loads: nothing from other hosts, and only what it uses."""

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.builders.html._assets import _JavaScript

from .maths import is_maths
from .widgets import stored_state

# Notebook figures are modules in blob: addresses; the theme and Sphinx use inline scripts and styles.
POLICY = {
    "default-src": "'self'",
    "script-src": "'self' 'unsafe-inline' blob:",
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data: blob:",
    "font-src": "'self' data:",
    "connect-src": "'self'",
    "object-src": "'none'",
    "base-uri": "'self'",
    "form-action": "'self'",
}
INDEX = """<!DOCTYPE html>
<html lang="en">
  <head>
    <meta charset="utf-8" />{policy}
    <title>To the book</title>
    <meta http-equiv="Refresh" content="0; url={target}" />
    <link rel="icon" href="_static/favicon.svg" />
  </head>
  <body><a href="{target}">To the book</a></body>
</html>
"""
UNUSED = ("thebe", "mathjax", "design-tabs")


def policy_tag() -> str:
    rules = "; ".join(f"{directive} {sources}" for directive, sources in POLICY.items())
    return f'\n    <meta http-equiv="Content-Security-Policy" content="{rules}" />'


def unused(name: str) -> bool:
    return any(word in name.lower() for word in UNUSED)


def scripts(found: list[_JavaScript], *, deferred: bool) -> list[_JavaScript]:
    """The page's scripts without what the book has no use for, each once; the widget state goes to the body's end."""
    kept = {}
    for script in found:
        name, body = str(script.filename or ""), script.attributes.get("body") or ""
        if not unused(name + body[:200]) and "widget-state" not in script.attributes.get("type", ""):
            kept.setdefault((name, body), script)
    return [defer(script) if deferred else script for script in kept.values()]


def defer(script: _JavaScript) -> _JavaScript:
    """A copy (pages share these objects) that waits for the page; inline scripts need the options at once."""
    if not script.filename or "documentation_options" in str(script.filename):
        return script
    return _JavaScript(script.filename, priority=script.priority, **{**script.attributes, "defer": "defer"})


Context = dict[str, Any]


def prepare(app: Sphinx, pagename: str, template: str, context: Context, doctree: nodes.document | None) -> None:
    context["metatags"] = policy_tag() + context.get("metatags", "")
    context["script_files"] = scripts(context["script_files"], deferred=pagename != "search")
    context["css_files"] = [css for css in context["css_files"] if not unused(str(css.filename))]
    context["has_maths"] = doctree is not None and any(doctree.findall(is_maths))
    context["widget_state"] = stored_state(app.env, pagename)


def write_index(app: Sphinx, error: Exception | None) -> None:
    """The site's front door, before sphinx-external-toc writes one without policy and icon."""
    if app.builder.format == "html" and not error:
        target = app.config.root_doc + ".html"
        (Path(app.outdir) / "index.html").write_text(INDEX.format(policy=policy_tag(), target=target), "utf-8")


def setup(app: Sphinx) -> None:
    app.connect("build-finished", write_index, priority=400)
    app.connect("html-page-context", prepare, priority=900)
