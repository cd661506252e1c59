"""How soon the first figure lives and answers a key. Other work on the machine disturbs: the best try counts."""

from statistics import median

LIVE = "() => Number(document.querySelector('.widget-slot[data-alive]').dataset.alive)"
# From the key to the first change of the drawing, for one slider.
LATENCIES = """async (handle) => {
    const figure = handle.closest(".widget-slot").querySelector(".ssmfig"), found = [];
    for (let i = 0; i < 15; i++) {
        await new Promise((done) => setTimeout(done, 20));
        const began = performance.now(), redrawn = new Promise((done) => {
            const observer = new MutationObserver(() => { observer.disconnect(); done(performance.now() - began); });
            observer.observe(figure, { subtree: true, childList: true, attributes: true, characterData: true });
        });
        if (handle.matches("input")) { // a script's keys do not move a native slider
            i % 2 ? handle.stepDown() : handle.stepUp();
            handle.dispatchEvent(new Event("input", { bubbles: true }));
        } else {
            const key = i % 2 ? "ArrowLeft" : "ArrowRight";
            handle.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
        }
        found.push(await Promise.race([redrawn, new Promise((done) => setTimeout(done, 500, 500))]));
    }
    return found;
}"""


def best(limit, measure, attempts=5):
    """The least of up to five measurements; the first one within the limit ends the search."""
    found = []
    while not found or (min(found) > limit and len(found) < attempts):
        found.append(measure())
    return min(found)


def test_first_figure_lives_soon(read, live):
    assert best(1500, lambda: read(live).evaluate(LIVE)) <= 1500  # milliseconds since navigation


def test_a_key_is_answered_within_a_frame(read, live):
    reader = read(live)
    for handle in reader.page.locator(".widget-slot:has(.ssmfig)").get_by_role("slider").all():
        name = handle.get_attribute("aria-label")
        assert best(20, lambda handle=handle: median(handle.evaluate(LATENCIES))) <= 20, name  # milliseconds
