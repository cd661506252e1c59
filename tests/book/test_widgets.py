"""Every control of every widget on every page changes what is drawn: by key and by mouse, without a kernel."""

from dataclasses import dataclass
from typing import Any

import pytest
from reader import Reader

# What a reader sees of a widget: drawings, texts and readouts; not the state of the control itself.
SEEN = """(slot) => {
    const figure = slot.querySelector(".ssmfig");
    if (!figure) return slot.querySelector(".widget-stage").textContent;
    const copy = figure.cloneNode(true);
    copy.querySelectorAll("input, select, button").forEach((control) => control.remove());
    return copy.innerHTML;
}"""
NAME = "(slider) => slider.getAttribute('aria-label') || slider.labels?.[0]?.textContent"
SPOKEN = "(slider) => slider.getAttribute('aria-valuetext') || slider.value"
WORDS = "(slot) => slot.querySelector('.ssmfig').textContent"  # labels and readout: numbers as the reader gets them
# The height a panel takes; a quiz keeps room for its longest feedback.
HEIGHT = """(panel) => Math.max(panel.offsetHeight, ...[...panel.querySelectorAll(".quiz input")].map((option) => {
    option.click();
    return panel.offsetHeight;
}))"""


@dataclass
class Widget:
    """One widget of a page, as its reader handles it."""

    reader: Any
    slot: Any

    def seen(self) -> str:
        self.reader.settle()
        return self.slot.evaluate(SEEN)

    def changes(self, *acts) -> bool:
        """Whether any of these acts changes what is seen; later ones are tried only if need be."""
        before = self.seen()
        return any((act(), self.seen() != before)[1] for act in acts)

    def press(self, control, key):
        def act():
            control.focus()
            self.reader.page.keyboard.press(key)

        return act

    def drag(self, handle, dx):
        def act():
            handle.scroll_into_view_if_needed()
            box = handle.bounding_box()
            x, y, mouse = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, self.reader.page.mouse
            mouse.move(x, y)
            mouse.down()
            mouse.move(x + dx, y, steps=4)
            mouse.up()

        return act


@pytest.fixture(scope="module")
def opened(browser, origins, live):
    """One window per page for all tests of this file."""
    reader = Reader(browser, origins["file"], 1200).visit(live)
    yield reader
    assert reader.close() == []


@pytest.fixture
def widgets(opened):
    """The widgets of a page, each as its author left it where it has a Reset button."""
    found = [Widget(opened, slot) for slot in opened.page.locator(".widget-slot").all()]
    yield found
    for widget in found:
        for button in widget.slot.get_by_role("button", name="Reset").all():
            button.click()
    opened.settle()


def test_all_live(widgets):
    for widget in widgets:
        assert widget.slot.locator(".widget-missing, .jupyter-widgets-error-widget").count() == 0
        assert widget.slot.locator(".jupyter-widgets").count() > 0


def test_sliders(widgets):
    for widget in widgets:
        for handle in widget.slot.get_by_role("slider").all():
            name, spoken = handle.evaluate(NAME), handle.evaluate(SPOKEN)
            assert name
            keys = [widget.press(handle, "ArrowRight"), widget.press(handle, "ArrowLeft")]
            assert widget.changes(*keys), f"{name}: keys"
            assert handle.evaluate(SPOKEN) != spoken, f"{name}: spoken value"
            assert widget.changes(widget.drag(handle, 60), widget.drag(handle, -60)), f"{name}: mouse"


def test_choices(widgets):
    for widget in widgets:
        for box in widget.slot.get_by_role("checkbox").all():  # first: a radio can switch one off
            assert widget.changes(box.click), "checkbox: click"
            assert widget.changes(widget.press(box, " ")), "checkbox: space"
        for radio in widget.slot.get_by_role("radio").all():
            if not radio.is_checked():
                assert widget.changes(radio.click), f"{radio.evaluate('(e) => e.value')}: click"


def test_choices_by_keyboard(widgets):
    for widget in widgets:
        for group in widget.slot.locator("fieldset").all():
            radios = group.get_by_role("radio")
            if radios.count() > 1:
                assert widget.changes(widget.press(radios.first, "ArrowDown"), widget.press(radios.first, " "))


def test_menus(widgets):
    for widget in widgets:
        for menu in widget.slot.locator(".ssmfig select").all():
            options = [lambda index=index, menu=menu: menu.select_option(index=index) for index in (1, 0)]
            assert widget.changes(*options)
            assert widget.changes(widget.press(menu, "ArrowDown"), widget.press(menu, "ArrowUp"))


def test_steppers(widgets):
    for widget in widgets:
        for bar in widget.slot.get_by_role("toolbar", name="Steps").all():
            forward, play = bar.get_by_role("button", name="One step forward"), bar.get_by_role("button", name="Play")
            assert widget.changes(forward.click), "forward"
            assert widget.changes(bar.get_by_role("button", name="One step back").click), "back"
            assert widget.changes(widget.press(forward, "ArrowRight")), "key"
            assert widget.changes(bar.get_by_role("button", name="Back to the start").click), "start"
            wait = widget.reader.page.wait_for_timeout
            assert widget.changes(lambda play=play, wait=wait: (play.click(), wait(1500)))
            bar.get_by_role("button", name="Back to the start").click()  # which ends the play


def test_reset(widgets):
    for widget in widgets:
        for button in widget.slot.get_by_role("button", name="Reset").all():
            before, handles = widget.slot.evaluate(WORDS), widget.slot.get_by_role("slider").all()
            if handles:
                assert widget.changes(widget.press(handles[0], "ArrowRight"), widget.press(handles[0], "ArrowLeft"))
            button.click()
            widget.reader.settle()
            assert widget.slot.evaluate(WORDS) == before


def test_quizzes_answer_every_option(widgets):
    for widget in widgets:
        answers = []
        for radio in widget.slot.locator(".quiz").get_by_role("radio").all():
            radio.click()
            widget.reader.settle()
            answers.append(widget.slot.get_by_role("status").inner_text())
        assert all(len(answer) > 20 for answer in answers)
        assert len(set(answers)) == len(answers)


@pytest.mark.parametrize(("width", "window", "name"), [(720, 1400, "--wide"), (358, 390, "--narrow")])
def test_reserved_room_is_true(read, live, width, window, name):
    reader = read(live, width=window)
    reader.page.add_style_tag(content=f".widget-slot {{ width: {width}px; }}")
    reader.page.wait_for_timeout(150)
    reader.settle()
    for slot in reader.page.locator(".widget-slot:has(.ssmfig-panel)").all():
        room = slot.evaluate("(slot, name) => parseFloat(slot.style.getPropertyValue(name))", name)
        height = slot.locator(".ssmfig-panel").first.evaluate(HEIGHT)
        tolerance = 20 if slot.locator(".quiz").count() else 8  # a quiz estimates its lines of text: one may be wrong
        assert abs(height - room) <= tolerance, slot.inner_text()[:80]
