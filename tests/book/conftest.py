"""The built site, from a file and from a server under a sub-path, in a real Chromium."""

import functools
import http.server
import logging
import os
import threading
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright
from reader import Reader

from tools import chromium

ROOT = Path(__file__).parents[2]
SITE = Path(os.environ.get("BOOK_SITE", ROOT / "_build" / "html"))
PAGES = sorted(str(page.relative_to(SITE)) for page in SITE.rglob("*.html") if "_static" not in page.parts)
LIVE = [page for page in PAGES if 'class="widget-slot"' in (SITE / page).read_text("utf-8")]


def pytest_generate_tests(metafunc):
    """`path` runs over every page, `live` over the pages with widgets."""
    for name, values in {"path": PAGES, "live": LIVE}.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, values, scope="module")


@pytest.fixture(scope="session")
def site():
    if not LIVE:
        pytest.fail(f"no built book with figures in {SITE}: run `make book` first", pytrace=False)
    return SITE


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves the site under /textbook/; its lines for every request are seen with pytest's --log-level=DEBUG alone."""

    def translate_path(self, path):
        return super().translate_path(path.removeprefix("/textbook")) if path.startswith("/textbook/") else os.devnull

    def log_message(self, format, *values):
        logging.getLogger(__name__).debug(format, *values)


@pytest.fixture(scope="session")
def origins(site):
    """The address of the site's root, by kind of origin."""
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield {"file": site.as_uri() + "/", "http": f"http://127.0.0.1:{server.server_port}/textbook/"}
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium.find(), args=chromium.ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def read(browser, origins):
    """`read(path, origin="file", width=1200)` opens a page; the test fails if any page that it opened had a problem."""
    readers = []

    def open_page(path, origin="file", width=1200, **options):
        readers.append(Reader(browser, origins[origin], width, **options))
        return readers[-1].visit(path)

    yield open_page
    problems = [problem for reader in readers for problem in reader.close()]
    assert problems == []
