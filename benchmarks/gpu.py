"""Our GPU kernels beside the public ones and beside what the GPU can do, in one run of a few minutes.

    python -m benchmarks.gpu --out ssm_kit/results/kernels_h200.json [--only ssd steps]

The public kernels, where they are installed:

    pip install --no-build-isolation causal-conv1d==1.6.1 mamba-ssm==2.3.2.post1
    pip install flash-linear-attention==0.6.0 accelerated-scan==0.3.1

The first two are compiled where no wheel fits, which needs the CUDA toolkit of torch's version and takes an hour for
all architectures; with the list in their setup.py cut to that of one GPU, seven minutes each on two cores.

Every contender is first compared with our "torch" backend in float64, outputs and gradients. One that fails is not
timed, and the table says so. Operators are checked side by side and timed one after the other, each in a process of
its own, so that one that fails stops no other. Times are medians of CUDA graph replays; the floor of a row is what its
bytes, matrix FLOPs or exponentials take at the rates measured in the same run. What a run measures takes the place of
the same parts in the file; other parts stay as they were, each with its commit, date and ceilings.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import gpu_attention
from benchmarks.gpu_case import Case, Contender, Tensors
from benchmarks.gpu_cases import PARTS, generator
from benchmarks.gpu_measure import Ceilings, ceilings, milliseconds, relative_error
from experiments import machine
from experiments.machine import SEED

LIMITS = {torch.float32: 1e-5, torch.bfloat16: 5e-3}
PATIENCE = 4
"""A peer may be off by so many times our limit: those limits are ours, not its authors'."""
ATTENTION = "attention"


def results(run: Callable[..., Any], tensors: Tensors, gradients: bool) -> dict[str, Tensor]:
    """The outputs of a call and, through all of them with one fixed noise, the gradient of every tensor."""
    leaves = {name: tensor.detach().clone().requires_grad_(gradients) for name, tensor in tensors.items()}
    outputs = run(leaves)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    named = {f"output {i}": output for i, output in enumerate(outputs)}
    if not gradients:
        return named
    generator = torch.Generator("cuda").manual_seed(SEED)
    noise = [torch.randn(o.shape, generator=generator, device="cuda").to(o.dtype) for o in outputs]
    return dict(zip(leaves, torch.autograd.grad(outputs, list(leaves.values()), noise), strict=True))


def error_of(case: Case, contender: Contender, gradients: bool) -> float | str:
    """The largest relative error of a contender's outputs (or gradients) against float64, or what it raised."""
    tensors = case.make(True)
    exact = {name: tensor.double() for name, tensor in tensors.items()}
    try:
        expected = results(lambda t: case.reference(**t), exact, gradients)
        found = results(lambda t: contender.restore(contender.run(**contender.arrange(t))), tensors, gradients)
        return max(relative_error(found[name], expected[name]) for name in expected)
    except Exception as failure:
        return f"{type(failure).__name__}: {str(failure).splitlines()[0][:200]}" if str(failure) else repr(failure)


def check(part: str) -> list[dict[str, float | str]]:
    """For every case of a part and both passes: contender's name -> error, or what it raised."""
    return [
        {contender.name: error_of(case, contender, gradients) for contender in case.contenders}
        for case in PARTS[part]() for gradients in passes(case)
    ]  # fmt: skip


def passes(case: Case) -> tuple[bool, ...]:
    """Without and with gradients; a step has none."""
    return (False,) if case.backward is None else (False, True)


def refusal(error: float | str, case: Case, contender: Contender) -> str | None:
    """Why no time may be shown for a contender with this error, or None."""
    limit = LIMITS[case.dtype] * (1 if contender.name == "ssm_kit" else PATIENCE)
    if isinstance(error, str):
        return error
    return None if error <= limit else f"relative error {error:.1e} against float64, allowed {limit:.0e}"


def timed(case: Case, contender: Contender, gradients: bool) -> dict[str, Any]:
    """Times of one contender at the full size."""
    copies = 3 if case.backward is None else 1  # a step's state might stay in the cache from one replay to the next
    sets = [contender.arrange(case.make(False)) for _ in range(copies)]
    if not gradients:
        with torch.no_grad():
            return milliseconds(lambda: [contender.run(**tensors) for tensors in sets], copies)
    return milliseconds(both_passes(contender, sets[0], case.dtype))


def both_passes(contender: Contender, tensors: Tensors, dtype: torch.dtype) -> Callable[[], tuple[Tensor, ...]]:
    """What computes y and, from one fixed gradient of y, those of all tensors."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    with torch.no_grad():
        noise = noise_like(output(contender, leaves), dtype)
    return lambda: torch.autograd.grad(output(contender, leaves), list(leaves.values()), noise)


def noise_like(y: Tensor, dtype: torch.dtype) -> Tensor:
    """A gradient of y that lies in memory as y does: in another layout it might be copied first, and that be timed."""
    return torch.empty_like(y, dtype=dtype).normal_(generator=generator())


def output(contender: Contender, tensors: Tensors) -> Tensor:
    y = contender.run(**tensors)
    return y[0] if isinstance(y, tuple) else y


def measure(
    cases: list[Case], errors: list[dict[str, float | str]], ceiling: Ceilings
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """The rows of some cases; a contender without a time has "refused" in its place."""
    keys = [(case, gradients) for case in cases for gradients in passes(case)]
    for (case, gradients), found in zip(keys, errors, strict=True):
        work = case.forward + case.backward if gradients and case.backward else case.forward
        floor, by = ceiling.floor(work)
        row = {"operator": case.operator, "shape": case.shape, "dtype": str(case.dtype).removeprefix("torch.")}
        row |= {"pass": "forward + backward" if gradients else "forward", "floor_ms": round(floor, 5), "floor_by": by}
        for contender in case.contenders:
            row[contender.name] = entry(case, contender, gradients, found[contender.name])
            torch.cuda.empty_cache()
        print(line(row), flush=True)
        yield row


def entry(case: Case, contender: Contender, gradients: bool, error: float | str) -> dict[str, Any]:
    if why := refusal(error, case, contender):
        return {"refused": why}
    try:
        return {"error": error, **timed(case, contender, gradients)}
    except Exception as failure:
        return {"refused": f"{type(failure).__name__}: {str(failure)[:200]}"}


def line(row: dict[str, Any]) -> str:
    """A row of the table: floor, ours as its multiple, each peer as a multiple of ours."""
    text = f"{row['operator']:22s}{row['shape']:46s}{row['dtype']:10s}{row['pass']:20s}{row['floor_ms']:8.4f} ms"
    ours = row["ssm_kit"].get("ms", [None])[0]
    for name, found in row.items():
        if not isinstance(found, dict):
            continue
        if "refused" in found:
            text += f"  | {name}: refused, {found['refused']}"
        else:
            ms = found["ms"][0]
            ratio = ms / row["floor_ms"] if name == "ssm_kit" or ours is None else ms / ours
            text += f"  | {name} {ms:.4f} ms, {ratio:.2f} × {'floor' if name == 'ssm_kit' or ours is None else 'ours'}"
    return text


def child(part: str, stage: str, folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "benchmarks.gpu", "--part", part, "--stage", stage, "--out", folder])


def work_as_child(part: str, stage: str, folder: Path) -> None:
    """What a process of its own does: check or time one part, and leave the result in the folder."""
    warnings.simplefilter("ignore")
    if stage == "check":
        write(folder, stage, part, check(part))
        return
    scans = [case for name in gpu_attention.SCANS for case in PARTS[name]()[:1]] if part == ATTENTION else []
    cases = scans or PARTS[part]()
    while not (folder / f"turn-{part}").exists():  # everything is imported by now; one at a time has the GPU
        time.sleep(0.05)
    if part == ATTENTION:
        trusted_scans = [trusted(case, read(folder, "check", case.operator)) for case in scans]
        write(folder, stage, part, gpu_attention.measure(trusted_scans))
        return
    rows: list[dict[str, Any]] = []
    for row in measure(cases, read(folder, "check", part), Ceilings(**read(folder, "ceilings", "all"))):
        rows.append(row)
        write(folder, stage, part, rows)


def trusted(case: Case, errors: list[dict[str, float | str]]) -> Case:
    """The case with those contenders whose outputs passed the check."""
    good = tuple(c for c in case.contenders if refusal(errors[0][c.name], case, c) is None)
    return Case(**{**vars(case), "contenders": good})


def read(folder: Path, stage: str, part: str) -> Any:
    return json.loads((folder / f"{stage}-{part}.json").read_text())


def write(folder: Path, stage: str, part: str, found: Any) -> None:
    """Under another name first: whoever reads it finds all of it or none."""
    half = folder / f"{stage}-{part}.half"
    half.write_text(json.dumps(found))
    half.rename(folder / f"{stage}-{part}.json")


def wait(processes: list[subprocess.Popen[bytes]], until: float) -> None:
    """Wait for them, and end those that are not done by then."""
    for process in processes:
        try:
            process.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def measure_all(parts: list[str], folder: Path, seconds: float) -> dict[str, dict[str, Any]]:
    """Check all parts side by side, then time them one after the other; what is not done in time is left out.

    Returns, for each part that is done, the ceilings of this run and its rows (of attention: its curves).
    """
    start = time.monotonic()
    checks = {part: gpu_attention.SCANS if part == ATTENTION else (part,) for part in parts}
    different = dict.fromkeys(check for needed in checks.values() for check in needed)
    wait([child(check, "check", folder) for check in different], start + 0.5 * seconds)
    found = ceilings()
    torch.cuda.empty_cache()
    write(folder, "ceilings", "all", vars(found))
    checked = [part for part in parts if all((folder / f"check-{check}.json").exists() for check in checks[part])]
    for part, process in [(part, child(part, "time", folder)) for part in checked]:
        (folder / f"turn-{part}").touch()
        wait([process], start + seconds)
    done = [part for part in checked if (folder / f"time-{part}.json").exists()]
    print("not measured:", ", ".join(part for part in parts if part not in done) or "nothing is missing")
    rates = {f"{name}_per_second": round(rate) for name, rate in vars(found).items()}
    measured = {part: read(folder, "time", part) for part in done}
    return {part: {"ceilings": rates, **(m if part == ATTENTION else {"rows": m})} for part, m in measured.items()}


def stored(out: Path, made: dict[str, Any]) -> dict[str, Any]:
    """The result that a new one is added to: parts that are not measured again stay, with their own record.

    Raises:
        SystemExit: it was made on another GPU or by other versions, beside which these times mean nothing.
    """
    if not out.exists():
        return {"wall_s": 0.0, "data": {}}
    before = json.loads(out.read_text(encoding="utf-8"))
    for entry in ("gpu", "torch", "triton"):
        if before[entry] != made[entry]:
            raise SystemExit(f"out: expected a file measured with {entry} {made[entry]}; {out} has {before[entry]}")
    return before


def added(before: dict[str, Any], made: dict[str, Any], measured: dict[str, Any], wall_s: float) -> dict[str, Any]:
    """The result of earlier runs and of this one, which takes the place of the parts that it has measured."""
    record = {"commit": made["commit"], "date": made["date"]}
    what = "Milliseconds of our GPU kernels, of the public ones, and the floor: median, 10th and 90th percentile"
    settings = {
        "limits": {str(dtype): limit for dtype, limit in LIMITS.items()},
        "peer_limits_times": PATIENCE,
        "wall_s": "of all runs; every part of the data says which commit it is of",
    }
    parts = {
        "seeds": [SEED],
        "wall_s": round(before["wall_s"] + wall_s, 1),
        "settings": settings,
        "data": before["data"] | {part: {**record, **found} for part, found in measured.items()},
    }
    return machine.result("benchmarks/gpu.py", what, [made], parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write, or to add parts to")
    parser.add_argument("--commit", help="the code's commit, where git is not at hand")
    parser.add_argument("--only", nargs="+", choices=[*PARTS, ATTENTION], default=[*PARTS, ATTENTION])
    parser.add_argument("--seconds", type=float, default=420, help="what is not done by then is left out")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        work_as_child(options.part, options.stage, options.out)
        return
    made, start = machine.provenance(machine.commit(options.commit), "cuda"), time.perf_counter()
    before = stored(options.out, made)
    with tempfile.TemporaryDirectory() as folder:
        measured = measure_all(options.only, Path(folder), options.seconds)
    machine.write(options.out, added(before, made, measured, time.perf_counter() - start))


if __name__ == "__main__":
    main()
