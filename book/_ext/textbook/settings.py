"""Settings that are not in `_config.yml`: they come from elsewhere, or Jupyter Book has no name for them."""

import tomllib
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

BOOK = Path(__file__).parents[2]
HERE = Path(__file__).parent


def repository() -> str:
    """The project's address, from its one place."""
    return tomllib.loads((BOOK.parent / "pyproject.toml").read_text("utf-8"))["project"]["urls"]["Repository"]


def apply(app: Sphinx, config: Config) -> None:
    config.templates_path.insert(0, str(HERE / "templates"))
    config.html_static_path += [str(BOOK / "_static"), str(BOOK / "runtime" / "dist" / "site")]
    # `html_theme_options` under sphinx.config in _config.yml would replace Jupyter Book's own: so it is changed here.
    config.html_theme_options |= {
        "repository_url": repository(),
        "repository_branch": "main",
        "use_repository_button": True,
        "logo": {"text": config.html_title},
        "navbar_persistent": [],  # else a second search field in an empty top bar
        "search_bar_text": "Search the book",
        "show_toc_level": 2,
        "pygments_light_style": "a11y-high-contrast-light",
        "pygments_dark_style": "a11y-high-contrast-dark",
    }


def setup(app: Sphinx) -> None:
    app.connect("config-inited", apply, priority=400)
    app.add_css_file("book.css", priority=900)
    app.add_css_file("icons.css", priority=900)
