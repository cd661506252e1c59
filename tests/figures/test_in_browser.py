"""Every figure on the preview page in Chromium: room, speed, names, keyboard. The book's own tests cover its pages."""

import re

import numpy as np
import pytest
from playwright.sync_api import sync_playwright

import ssm_kit.figures
from ssm_kit.figures.base import Choice, Switch, Text, Whole
from tools import chromium, preview

DRAWN = [name for name in ssm_kit.figures.__all__ if name != "Quiz"]
WIDTHS = {720: 1200, 358: 390}  # of the panel: of the window
MOVE = """async ([name, values]) => {
    const section = document.getElementById(name), svg = section.querySelector(".ssmfig > svg"), readout = section.querySelector(".readout");
    for (const [trait, value] of Object.entries(values)) section.model.set(trait, value);
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    return { text: `${svg.textContent} ${readout.textContent}`, height: section.querySelector(".ssmfig-panel").offsetHeight,
             ms: Number(section.querySelector("[data-draw-ms]").dataset.drawMs) };
}"""  # noqa: E501


# Pairs of texts in the drawing that lie on each other, and texts that leave it.
CLASHES = """(name) => {
    const svg = document.querySelector(`#${name} .ssmfig > svg`), room = svg.getBoundingClientRect(), found = [];
    const texts = [...svg.querySelectorAll("text")].filter((e) => e.textContent.trim())
        .map((e) => [e.textContent, e.getBoundingClientRect()]);
    texts.forEach(([a, p], i) => {
        const beyond = [room.left - p.left, p.right - room.right, room.top - p.top, p.bottom - room.bottom];
        if (Math.max(...beyond) > 4) found.push(`${a} outside`);
        for (const [b, q] of texts.slice(i + 1)) {
            const width = Math.min(p.right, q.right) - Math.max(p.left, q.left);
            if (width > 1 && Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 4) found.push(`${a} on ${b}`);
        }
    });
    return found;
}"""


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium.find(), args=chromium.ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    file = tmp_path_factory.mktemp("preview") / "figures.html"
    file.write_text(preview.page(ssm_kit.figures.__all__), "utf-8")
    return file.as_uri()


@pytest.fixture(scope="module", params=WIDTHS)
def page(browser, address, request):
    """One page per width for all tests; each leaves the figures as it found them."""
    with browser.new_context(viewport={"width": WIDTHS[request.param], "height": 900}) as context:
        page, problems = context.new_page(), []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: message.type == "error" and problems.append(message.text))
        page.goto(address)
        page.wait_for_selector("body[data-ready]")
        page.wait_for_function("!document.querySelector('.ssmfig > svg:not([width])')")
        page.width = request.param
        yield page
        assert problems == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def positions(figure, rng):
    """Random values for all parameters, on the positions of their sliders."""

    def value(trait):
        if isinstance(trait, Choice | Switch):
            return rng.choice(trait.values).item() if isinstance(trait, Choice) else bool(rng.random() < 0.5)
        _, step, base = trait.metadata.get("slider", ("", 1, None))
        low, high = (np.log(v) / np.log(base) if base else v for v in (trait.min, trait.max))
        at = low + step * rng.integers(0, round((high - low) / step) + 1)
        at = base ** round(at) if base else at
        return int(at) if isinstance(trait, Whole) else round(float(at), 9)

    return {name: value(trait) for name, trait in figure._parameters.items() if not isinstance(trait, Text)}


def test_reserved_space_is_what_the_figure_takes(page):
    """The theme's font differs between machines by a line at most, in a quiz by two."""
    for name in ssm_kit.figures.__all__:
        figure = preview.example(name)
        found = page.locator(f"#{name} .ssmfig-panel").evaluate("(panel) => panel.offsetHeight")
        assert found == pytest.approx(figure.space()[page.width == 358], abs=40 if name == "Quiz" else 8), name


@pytest.mark.parametrize("name", DRAWN)
def test_nothing_moves_while_readers_play(page, name):
    figure, rng = preview.example(name), np.random.default_rng(0)
    before = page.evaluate(MOVE, [name, {}])
    results = []
    for _ in range(20):
        values = positions(figure, rng)
        results.append(page.evaluate(MOVE, [name, values]))
        assert page.evaluate(CLASHES, name) == [], values
    assert {result["height"] for result in results} == {before["height"]}
    assert not [r["text"] for r in results if "NaN" in r["text"] or "undefined" in r["text"]]
    assert len({result["text"] for result in results}) > 10
    page.locator(f"#{name}").get_by_role("button", name="Reset").click()
    assert page.evaluate(MOVE, [name, {}])["text"] == before["text"]


@pytest.mark.parametrize("name", DRAWN)
def test_redraw_fits_into_a_frame(page, name):
    """The fastest of several redraws between two settings: other work on the machine only ever adds."""
    figure, rng = preview.example(name), np.random.default_rng(1)
    settings = [positions(figure, rng), positions(figure, rng)]
    assert min(page.evaluate(MOVE, [name, settings[i % 2]])["ms"] for i in range(12)) < 16
    page.locator(f"#{name}").get_by_role("button", name="Reset").click()


def test_controls_have_names_and_room_for_fingers(page):
    controls = page.locator(".ssmfig :is(button, input, select)")
    for control in controls.all():
        found = control.evaluate("""(e) => {
            const box = (e.closest("label") ?? e).getBoundingClientRect();
            return [e.ariaLabel || e.labels?.[0]?.textContent || e.textContent, Math.min(box.width, box.height)];
        }""")
        assert found[0].strip()
        assert found[1] >= 24, found


def test_slider_labels_fit(page):
    cut = "(labels) => labels.filter((e) => e.scrollWidth > e.clientWidth).map((e) => e.textContent)"
    assert page.locator(".ssmfig-panel .widget-label").evaluate_all(cut) == []


def test_radios_by_keyboard_and_announced(page):
    figure = page.locator("#Discretization")
    assert figure.get_by_role("status").inner_text().startswith("ZOH: Ā = 0.861, B̄ = 0.139")
    figure.get_by_role("radio", name="ZOH").focus()
    page.keyboard.press("ArrowDown")
    page.wait_for_timeout(100)
    assert figure.get_by_role("status").inner_text().startswith("bilinear on the mean of xₖ₋₁ and xₖ")
    figure.get_by_role("checkbox").press(" ")
    page.wait_for_timeout(100)
    assert figure.get_by_role("status").inner_text().startswith("bilinear on xₖ alone, as in S4's code")
    figure.get_by_role("button", name="Reset").click()


def test_less_motion_means_no_play(browser, address):
    with browser.new_context(reduced_motion="reduce") as context:
        page = context.new_page()
        page.goto(address)
        stepper = page.get_by_role("toolbar", name="Steps").first
        stepper.get_by_role("button", name="To the end").click()
        assert re.fullmatch(r"step (\d+) of \1", stepper.locator(".count").inner_text())


def test_averaging_is_off_for_a_held_input(page):
    figure = page.locator("#Discretization")
    box, held = figure.get_by_role("checkbox"), figure.get_by_role("radio", name="held")
    figure.get_by_role("radio", name="bilinear").check()
    assert (box.is_checked(), box.get_attribute("aria-disabled")) == (True, "false")
    held.check()
    box.press(" ")
    page.wait_for_timeout(100)
    assert (box.is_checked(), box.get_attribute("aria-disabled")) == (False, "true")
    assert figure.get_by_role("status").inner_text().startswith("bilinear on xₖ, the held input")
    figure.get_by_role("radio", name="smooth").check()
    assert box.is_checked()
    figure.get_by_role("button", name="Reset").click()


def test_play_repeats_the_text_and_ends_where_state_and_cache_are_equal(page):
    figure = page.locator("#RunningState")
    count, stepper = figure.locator(".count"), figure.get_by_role("toolbar", name="Steps")
    assert count.inner_text() == "step 0 of 640"
    figure.get_by_label("State of").select_option("mamba-1")  # the end follows other traits
    assert count.inner_text() == "step 0 of 80"
    page.evaluate(MOVE, ["RunningState", {"tokens": 76}])
    stepper.get_by_role("button", name="Play").click()
    page.wait_for_function("document.querySelector('#RunningState .count').textContent === 'step 80 of 80'")
    stepper.get_by_role("button", name="Play").wait_for()  # it has stopped by itself
    assert "Equal to the byte" in figure.get_by_role("status").inner_text()
    figure.get_by_label("Text").fill("")
    assert count.inner_text() == "step 0 of 0"
    figure.get_by_role("button", name="Reset").click()
    assert count.inner_text() == "step 0 of 640"


def test_values_keep_off_the_sliders(page):
    """The longest value fits into its column, at the slider's end too."""
    page.evaluate(MOVE, ["CostVsLength", {"length": 2**20}])
    value = page.locator("#CostVsLength .widget-readout").first
    assert value.inner_text() == "1,048,576"
    assert value.evaluate("(e) => e.scrollWidth <= e.clientWidth")
    page.locator("#CostVsLength").get_by_role("button", name="Reset").click()


def test_quiz_by_keyboard(page):
    quiz = page.locator("#Quiz")
    height, feedback = quiz.evaluate("(e) => e.offsetHeight"), quiz.get_by_role("status")
    quiz.get_by_role("radio").first.focus()
    page.keyboard.press("ArrowDown")
    assert feedback.inner_text().startswith("✗ Not quite. That is the limit")
    quiz.get_by_role("radio").first.check()
    assert feedback.inner_text().startswith("✓ Correct.")
    assert quiz.evaluate("(e) => e.offsetHeight") == height
    quiz.get_by_role("button", name="Clear").click()
    assert feedback.inner_text() == ""
    assert quiz.locator("input:checked").count() == 0
