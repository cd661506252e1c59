"""The Sphinx extension that makes the book self-contained: maths, widgets, icons and scripts all come from the site."""

from typing import Any

from sphinx.application import Sphinx

from . import maths, pages, records, settings, widgets


def setup(app: Sphinx) -> dict[str, Any]:
    for part in (settings, maths, widgets, pages, records):
        part.setup(app)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
