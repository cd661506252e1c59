"""What each page loads: nothing from other hosts, and only what it uses."""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

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
UNUSED = ("thebe", "mathjax", "design-tabs")


def policy_tag() -> str:
    rules = "; ".join(f"{directive} {sources}" for directive, sources in POLICY.items())
    return f'\n    <meta http-equiv="Content-Security-Policy" content="{rules}" />'


def unused(name: str) -> bool:
    return any(word in name.lower() for word in UNUSED)


def scripts(found: list[Any], *, deferred: bool) -> list[Any]:
    """The page's scripts without what the book has no use for, each once; the widget state goes to the body's end."""
    kept = {}
    for script in found:
        name, body = str(script.filename or ""), script.attributes.get("body") or ""
        if not unused(name + body[:200]) and "widget-state" not in script.attributes.get("type", ""):
            kept.setdefault((name, body), script)
    for (name, _), script in kept.items():
        if deferred and name and "documentation_options" not in name:  # inline scripts need the options at once
            script.attributes["defer"] = "defer"
    return list(kept.values())


def prepare(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    context["metatags"] = policy_tag() + context.get("metatags", "")
    context["script_files"] = scripts(context["script_files"], deferred=pagename != "search")
    context["css_files"] = [css for css in context["css_files"] if not unused(str(css.filename))]
    context["has_maths"] = doctree is not None and any(doctree.findall(lambda n: isinstance(n, (nodes.math, nodes.math_block))))
    context["widget_state"] = stored_state(app.env, pagename)


def setup(app: Sphinx) -> None:
    app.connect("html-page-context", prepare, priority=900)
