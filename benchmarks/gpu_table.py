"""The stored GPU measurements as Markdown, for README.md beside this file: `python -m benchmarks.gpu_table`."""

from typing import Any

from ssm_kit import results

START, END = "<!-- measured: python -m benchmarks.gpu_table -->", "<!-- end -->"


def lines(result: dict[str, Any]) -> list[str]:
    """For each run that parts of the result are of: its ceilings, then a row for each operator, size and pass."""
    runs: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for part in result["data"].values():
        if "rows" in part:
            runs.setdefault((part["date"], part["commit"], *part["ceilings"].values()), []).extend(part["rows"])
    return [line for run, rows in sorted(runs.items(), reverse=True) for line in table(result, run, rows)]


def table(result: dict[str, Any], run: tuple[Any, ...], rows: list[dict[str, Any]]) -> list[str]:
    """The rows that one run has measured."""
    date, commit, copy, matmul, ex2 = run
    return [
        f"{result['gpu']}, torch {result['torch']}, triton {result['triton']}, {date}, commit {commit[:7]}: copy "
        f"{copy / 1e9:.0f} GB/s, bfloat16 matmul {matmul / 1e12:.0f} TFLOP/s, exponentials {ex2 / 1e9:.0f} G/s.",
        "",
        "| operator, size | pass | floor, ms | ours, ms | × floor | public kernel, ms | ours is faster by |",
        "|---|---|---|---|---|---|---|",
        *map(row, rows),
        "",
    ]


def row(entry: dict[str, Any]) -> str:
    """One line of the table; a dash where there is no time."""
    ours = entry["ssm_kit"].get("ms", [None])[0]
    peers = [(name, found) for name, found in entry.items() if isinstance(found, dict) and name != "ssm_kit"]
    theirs = ", ".join(f"{name} {found['ms'][0]:.3f}" if "ms" in found else f"{name}: refused" for name, found in peers)
    ratios = [f"{found['ms'][0] / ours:.2f} ×" for _, found in peers if ours and "ms" in found]
    cells = [
        f"`{entry['operator']}` {entry['shape']}, {entry['dtype']}", entry["pass"], f"{entry['floor_ms']:.3f}",
        f"{ours:.3f}" if ours else "–", f"{ours / entry['floor_ms']:.2f}" if ours else "–",
        theirs or "–", ", ".join(ratios) or "–",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print("\n".join(lines(results.load("kernels_h200"))))
