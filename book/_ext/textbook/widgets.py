"""Widget outputs: a slot that keeps their room free while the page loads, and a still for readers without JavaScript.

myst-nb keeps every MIME type of an output in the doctree and picks one in a post-transform of priority 4 (the widget
view, in HTML). The transform here runs just before.
"""

import json
import re
from typing import Any

from docutils import nodes
from myst_nb.sphinx_ext import NbMetadataCollector
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

VIEW = "application/vnd.jupyter.widget-view+json"
STATE_KEY = "ipywidgets_state"  # under which myst-nb files a page's widget state
State = dict[str, Any]


def stored_state(env: Any, docname: str) -> str:
    """The widget state saved in a notebook, as JSON; empty for other pages."""
    scripts = NbMetadataCollector.get_js_files(env, docname)
    return scripts[STATE_KEY][1]["body"] if STATE_KEY in scripts else ""


def space(models: State, model_id: str) -> tuple[int, int] | None:
    """The height that a figure declares (wide, narrow; CSS pixels): its own, or that of a box's first child."""
    state = models.get(model_id, {}).get("state", {})
    if any(state.get("_space", ())):
        return tuple(state["_space"])
    children = state.get("children")
    return space(models, children[0].removeprefix("IPY_MODEL_")) if children else None


def slot(room: tuple[int, int] | None) -> str:
    style = f' style="--wide:{room[0]}px;--narrow:{room[1]}px"' if room else ""
    return f'<div class="widget-slot"{style}><div class="widget-stage"></div>'


class Slots(SphinxPostTransform):
    default_priority = 3
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        models = json.loads(stored_state(self.env, self.env.docname) or "{}").get("state", {})
        for bundle in list(self.document.findall(nodes.container)):
            if bundle.get("nb_element") == "mime_bundle":
                branches = {branch["mime_type"]: branch for branch in bundle.children}
                if VIEW in branches:
                    self.enclose(branches, models)

    def enclose(self, branches: dict[str, nodes.container], models: State) -> None:
        view = branches[VIEW]
        script = view.astext()
        model_id = json.loads(re.sub(r"</?script[^>]*>", "", script))["model_id"]
        if model_id not in models:
            raise ValueError(f"{self.env.docname}: no stored state for widget {model_id}: run `make notebooks`")
        parts = [raw(slot(space(models, model_id)) + script), *self.still(branches), raw("</div>")]
        view.children = []
        view.extend(parts)

    def still(self, branches: dict[str, nodes.container]) -> list[nodes.Node]:
        found = branches.get("image/png") or branches.get("text/markdown")
        if found is None:
            return [raw("<noscript><p>This figure needs JavaScript.</p></noscript>")]
        children = [child.deepcopy() for child in found.children]
        for image in (i for child in children for i in child.findall(nodes.image)):
            image["alt"] = "Still picture of the interactive figure " + branches["text/plain"].astext()
        return [raw("<noscript>"), *children, raw("</noscript>")]


def raw(html: str) -> nodes.raw:
    return nodes.raw("", html, format="html")


def setup(app: Sphinx) -> None:
    app.add_post_transform(Slots)
