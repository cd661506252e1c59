"""The stored GPU measurements as Markdown, for README.md beside this file: `python -m benchmarks.gpu_table`."""

from typing import Any

from ssm_kit import results

START, END = "<!-- measured: python -m benchmarks.gpu_table -->", "<!-- end -->"


def lines() -> list[str]:
    """All of it: operators beside public kernels, beside attention, and in pieces on several GPUs."""
    kernels = results.load("kernels_h200")
    return [*runs(kernels), *beside_attention(kernels), *in_pieces(results.load("sequence_parallel"))]


def runs(result: dict[str, Any]) -> list[str]:
    """For each run that parts of the result are of: its ceilings, then a row for each operator, size and pass."""
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for part in result["data"].values():
        if "rows" in part:
            found.setdefault((part["date"], part["commit"], *part["ceilings"].values()), []).extend(part["rows"])
    return [line for run, rows in sorted(found.items(), reverse=True) for line in table(result, run, rows)]


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


def beside_attention(result: dict[str, Any]) -> list[str]:
    """Milliseconds at every length, and from where on each scan is faster than the faster attention, cuDNN's."""
    part = result["data"]["attention"]
    lengths = [f"{length // 1024}k" for length in part["lengths"]]
    crossings = part["faster_from"]
    found = [
        "### Beside attention",
        "",
        f"One layer of width 2048, batch 1, bfloat16, forward, in ms ({part['date']}, commit {part['commit'][:7]}).",
        "",
        f"| length | {' | '.join(lengths)} | faster than cuDNN's attention from |",
        f"|---|{'---|' * len(lengths)}---|",
    ]
    for name, times in part["milliseconds"].items():
        cells = ["–" if time is None else f"{time:.3g}" for time in times]
        found.append(f"| {name} | {' | '.join(cells)} | {crossings.get(f'{name} / attention cudnn') or '–'} |")
    return [*found, ""]


def in_pieces(result: dict[str, Any]) -> list[str]:
    """One sequence on 1, 2, 4 GPUs: milliseconds, how often as fast as one GPU, bytes on each."""
    made = f"{result['gpu']}, {result['date']}, commit {result['commit'][:7]}"
    found = [
        "### One sequence on several GPUs",
        "",
        f"Batch 1, bfloat16, by the clock on the wall ({made}).",
        "",
        "| operator | length | GPUs | forward, ms | forward + backward, ms | GB on each |",
        "|---|---|---|---|---|---|",
    ]
    for operator, points in result["data"].items():
        alone = {point["length"]: point for point in points if point["gpus"] == 1}
        rows = sorted(points, key=lambda point: (point["length"], point["gpus"]))
        found += [piece(operator, point, alone[point["length"]]) for point in rows]
    return found


def piece(operator: str, point: dict[str, Any], alone: dict[str, Any]) -> str:
    """One line of the table, beside the same on one GPU."""
    times = [f"{point[name]:.2f} ({alone[name] / point[name]:.2f} ×)" for name in ("forward_ms", "both_ms")]
    held = f"{point['peak_bytes'] / 1e9:.1f}"
    return f"| `{operator}` | {point['length']} | {point['gpus']} | {' | '.join(times)} | {held} |"


if __name__ == "__main__":
    print("\n".join(lines()))
