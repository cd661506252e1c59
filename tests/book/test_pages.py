"""Every page: silent, self-contained, light, steady, and no wider than a phone."""

import gzip
import re
from urllib.parse import unquote, urlsplit

import pytest

LIMIT = 1.6e6  # bytes, gzipped, of a page with everything it loads
BLOCKED = """async (address) => {
    const blocked = new Promise((done) => addEventListener("securitypolicyviolation", (e) => done(e.blockedURI)));
    fetch(address).catch(() => {});
    return Promise.race([blocked, new Promise((done) => setTimeout(done, 2000, null))]);
}"""
WIDEST = """() => [...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > innerWidth
    && !e.closest("pre, .math-scroll, .pst-scrollable-table-container, .bd-sidebar, dialog, .katex-mathml"))
    .slice(0, 3).map((e) => e.outerHTML.slice(0, 90))"""


def weight(site, reader):
    """Gzipped bytes of all that the page has asked for."""
    paths = [urlsplit(url).path for url in reader.requests if url.startswith("http")]
    names = {unquote(path.removeprefix("/textbook/")) for path in paths}
    return sum(len(gzip.compress((site / name).read_bytes())) for name in names if (site / name).is_file())


@pytest.mark.parametrize(("origin", "width"), [("file", 1200), ("http", 390)])
def test_silent_steady_narrow_and_light(read, path, origin, width, site):
    reader = read(path, origin, width)  # fails on any error, and on any request to another host
    assert reader.evaluate("layoutShift") <= 0.1
    assert reader.evaluate("document.documentElement.scrollWidth") <= width, reader.evaluate(WIDEST)
    assert weight(site, reader) <= LIMIT


def test_policy_comes_before_anything_that_loads(path, site):
    head = (site / path).read_text("utf-8").partition("</head>")[0]
    policy = head.index('<meta http-equiv="Content-Security-Policy"')
    assert not re.search("<(script|link|style)", head[:policy])


def test_policy_is_enforced(read):
    reader = read("book/intro.html")
    assert reader.evaluate(BLOCKED, "https://example.org/") == "https://example.org/"
    reader.problems.clear()  # the browser reports what it blocked, as it should
