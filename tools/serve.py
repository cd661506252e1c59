"""Serve the built book on localhost and open a browser: `python -m tools.serve`."""

import argparse
import functools
import http.server
import webbrowser
from pathlib import Path

SITE = Path(__file__).resolve().parents[1] / "_build" / "html"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    port = parser.parse_args().port
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=SITE)
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        address = f"http://127.0.0.1:{port}/"
        print(f"The book is at {address} (stop with Ctrl-C)")
        webbrowser.open(address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
