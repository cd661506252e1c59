"""Search, theme, launch and download buttons, and what readers without JavaScript see."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["urls"]["Repository"]


@pytest.mark.parametrize("origin", ["file", "http"])
def test_search_finds_a_word(read, origin):
    reader = read("search.html?q=recurrence", origin)
    reader.page.wait_for_selector("ul.search li a")
    assert reader.page.locator("ul.search li a").count() >= 3


def test_search_from_any_page(read):
    reader = read("book/notation.html", "http")
    reader.page.locator("button.search-button-field, button.search-button__button").first.click()
    reader.page.keyboard.type("recurrence")
    reader.page.keyboard.press("Enter")
    reader.page.wait_for_selector("ul.search li a")


def test_theme_switch_recolours_text_and_figures(read, live):
    reader = read(live)
    colours = """() => [getComputedStyle(document.body).backgroundColor,
        ...[".ssmfig", ".jupyter-widgets"].flatMap((s) => [...document.querySelectorAll(s)].slice(0, 1))
        .map((e) => getComputedStyle(e).color)]"""
    seen = {}
    for _ in range(3):  # light, dark, and as the system says
        seen[reader.evaluate("document.documentElement.dataset.theme")] = reader.evaluate(colours)
        reader.page.locator("button.theme-switch-button:visible").first.click()
        reader.settle()
    assert all(light != dark for light, dark in zip(seen["light"], seen["dark"], strict=True))


def test_dark_readers_see_no_flash_of_light(read):
    reader = read("book/notation.html", color_scheme="dark")
    assert reader.evaluate("document.documentElement.dataset.theme") == "dark"


def test_colab_and_download_buttons(site, live, read):
    reader = read(live)
    links = reader.evaluate("[...document.querySelectorAll('.article-header-buttons a')].map((a) => a.href)")
    notebook = live.replace(".html", ".ipynb")
    account = REPOSITORY.removeprefix("https://github.com/")
    assert f"https://colab.research.google.com/github/{account}/blob/main/{notebook}" in links
    assert REPOSITORY in links
    assert any(link.endswith(f"_sources/{notebook}") for link in links)
    assert (site / "_sources" / notebook).is_file()


@pytest.mark.parametrize("width", [1200, 390])
def test_without_javascript_every_figure_has_a_still(read, live, width):
    reader = read(live, width=width, java_script_enabled=False)
    slots = reader.page.locator(".widget-slot")
    for slot in slots.all():
        still = slot.locator("img, details, p").first
        assert still.is_visible()
        assert still.evaluate("(e) => e.tagName !== 'IMG' || e.alt.length > 20")
