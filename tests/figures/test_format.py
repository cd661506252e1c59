"""Numbers as the figures write them."""

import pytest

from tools import figures as builder

CASES = [
    ("fixed", [-1.5], "−1.50"),
    ("fixed", [2, 0], "2"),
    ("short", [0.08491], "0.0849"),
    ("short", [69.314], "69.3"),
    ("short", [1840.4], "1,840"),
    ("short", [1.23e-7], "1.23×10⁻⁷"),
    ("short", [-4e9], "−4×10⁹"),
    ("short", [0], "0"),
    ("count", [1048576], "1,048,576"),
    ("percent", [0.0831], "8.3 %"),
    ("percent", [0.0996], "10 %"),
    ("percent", [0.0002], "< 0.1 %"),
    ("percent", [0], "0.0 %"),
    ("sup", [-12], "⁻¹²"),
    ("sub", [40], "₄₀"),
    ("bytes", [512], "512 B"),
    ("bytes", [1024], "1 KiB"),
    ("bytes", [1.5 * 2**30], "1.5 GiB"),
    ("bytes", [2**20 - 1], "1 MiB"),
    ("si", [2e6], "2 M"),
    ("si", [1.5e9, "FLOP"], "1.5 GFLOP"),
    ("si", [0, "B"], "0 B"),
    ("powers", [10, 3e-6, 1], [1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1]),
    ("powers", [2, 256, 2**20, 4], [256, 4096, 65536, 1048576]),
]


def test_formats(javascript):
    builder.main(["--check", "quiz"])  # fetches d3-format where it is missing
    found = javascript("../shared/format.js", [[function, *arguments] for function, arguments, _ in CASES])
    for (function, arguments, expected), text in zip(CASES, found, strict=True):
        wanted = pytest.approx(expected) if isinstance(expected, list) else expected
        assert text == wanted, (function, arguments)
