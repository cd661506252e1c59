"""One reader of the book: a browser window that writes down what it is asked to load and what goes wrong."""

from urllib.parse import urljoin

LOCAL = ("blob:", "data:")
WATCH_SHIFTS = """
    window.layoutShift = 0;
    new PerformanceObserver((list) => { for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.layoutShift += entry.value; })
      .observe({ type: "layout-shift", buffered: true });
"""  # noqa: E501
REDRAWN = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => requestAnimationFrame(done))))"


class Reader:
    def __init__(self, browser, root, width, **options):
        self.root, self.requests, self.problems = root, [], []
        self.scripted = options.get("java_script_enabled", True)
        self.context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        self.context.set_default_timeout(15000)
        self.context.add_init_script(WATCH_SHIFTS)
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.problems.append(f"page error: {error}"))
        self.page.on("console", self.listen)
        self.page.on("request", self.watch)

    def listen(self, message):
        if message.type == "error":
            self.problems.append(f"console: {message.text}")

    def watch(self, request):
        self.requests.append(request.url)
        if not request.url.startswith((self.root, *LOCAL)):
            self.problems.append(f"request to another host: {request.url}")

    def visit(self, path):
        """Open a page and wait until its widgets, if any, live."""
        self.page.goto(urljoin(self.root, path), wait_until="load")
        self.page.wait_for_selector("meta[http-equiv=Refresh]", state="detached")  # the front door leads on
        if self.scripted and self.page.locator(".widget-slot").count():
            self.page.wait_for_selector("html[data-widgets=alive]", state="attached")
        self.settle()
        return self

    def settle(self):
        """Wait for what is due to be drawn."""
        if self.scripted:
            self.page.evaluate(REDRAWN)

    def evaluate(self, *script):
        return self.page.evaluate(*script)

    def close(self):
        """Close the window; returns what went wrong in it."""
        self.context.close()
        return self.problems
