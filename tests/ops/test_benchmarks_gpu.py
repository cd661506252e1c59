"""The GPU benchmark: floors, crossings, and the gate that shows no time of a kernel that fails its check."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("triton", reason="the GPU benchmark times through Triton")

from benchmarks import gpu, gpu_cases, gpu_profile, gpu_table
from benchmarks.gpu_attention import crossing
from benchmarks.gpu_case import Case, Contender, Work
from benchmarks.gpu_measure import Ceilings, relative_error
from ssm_kit import results
from ssm_kit.ops import first_order_scan

H200 = Ceilings(copy=4274e9, matmul=680e12, ex2=4169e9)


@pytest.fixture
def cases(monkeypatch):
    """All rows, without a GPU: no tensor is made until a row's `make` is called."""
    return {case.name: case for part in gpu_cases.PARTS.values() for case in part()}


@pytest.mark.parametrize(
    ("row", "forward", "both"),
    [
        ("selective_scan B8 L2048", 0.322, 0.643),
        ("selective_scan B1 L65536", 1.286, 2.57),
        ("ssd B8 L4096", 0.153, 0.511),
        ("first_order_scan 32768 sequences L4096 float32", 0.377, 1.005),
        ("first_order_scan 32768 sequences L4096 bfloat16", 0.188, 0.503),
        ("causal_conv1d B8", 0.126, 0.314),
        ("gated_delta_rule B8", 0.126, 0.346),
    ],
)
def test_floors_counted_by_hand(cases, row, forward, both):
    (case,) = (case for name, case in cases.items() if name.startswith(row) or name == row)
    assert H200.floor(case.forward)[0] == pytest.approx(forward, rel=0.02)
    assert H200.floor(case.forward + case.backward)[0] == pytest.approx(both, rel=0.02)


def test_the_slowest_unit_makes_the_floor():
    ceilings = Ceilings(copy=10.0, matmul=100.0, ex2=1.0)
    assert ceilings.floor(Work(20, 100, 1)) == (2000.0, "copy")
    assert ceilings.floor(Work(20, 300, 1)) == (3000.0, "matmul")
    assert ceilings.floor(Work(20, 300, 4) + Work(1, 1, 1)) == (5000.0, "ex2")


def test_where_two_curves_cross():
    lengths = [1024, 2048, 4096, 8192]
    assert crossing(lengths, [4, 4, 4, 4], [1, 4, 16, 64]) == 2048
    assert crossing(lengths, [2, 2, 2, 2], [1, 1, 4, 16]) == round(2048 * 2**0.5)
    assert crossing(lengths, [1, 1, 1, 1], [2, 2, 2, 2]) == 1024
    assert crossing(lengths, [3, 1, 1, 3], [2, 2, 2, 2]) is None
    assert crossing(lengths, [4, 4, None, 4], [1, 2, 9, 64]) == round(2048 * 4 ** (1 / 5))
    assert crossing(lengths, [None] * 4, [1] * 4) is None


def a_case(run):
    def make(small):
        return {"a": torch.rand(1, 9, 2), "b": torch.randn(1, 9, 2)}

    contenders = (Contender("ssm_kit", run), Contender("peer", run))
    return Case("scan", "tiny", make, first_order_scan, contenders, Work(1e9), Work(1e9), torch.float32)


@pytest.fixture
def no_gpu(monkeypatch):
    generator = torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda device: generator())
    randn = torch.randn
    monkeypatch.setattr(torch, "randn", lambda *shape, device=None, **kwargs: randn(*shape, **kwargs))


@pytest.mark.parametrize("gradients", [False, True])
def test_the_gate_passes_what_is_right_and_names_what_is_wrong(gradients, no_gpu, monkeypatch):
    monkeypatch.setattr(gpu, "timed", lambda *_: {"ms": [1.0, 1.0, 1.0], "timing": "graph"})
    right = a_case(first_order_scan)
    error = gpu.error_of(right, right.contenders[0], gradients)
    assert 0 < error < 1e-6
    assert gpu.entry(right, right.contenders[0], gradients, error)["ms"] == [1.0, 1.0, 1.0]

    wrong = a_case(lambda a, b: first_order_scan(a, b * 1.001))
    error = gpu.error_of(wrong, wrong.contenders[0], gradients)
    assert error == pytest.approx(1e-3, rel=0.5)
    refused = gpu.entry(wrong, wrong.contenders[0], gradients, error)
    assert refused.keys() == {"refused"}
    assert "allowed 1e-05" in refused["refused"]


def test_a_failing_contender_is_a_row_and_no_end(no_gpu, monkeypatch):
    def broken(a, b):
        raise RuntimeError("no image for this device\nand more")

    case = a_case(broken)
    assert gpu.error_of(case, case.contenders[0], False) == "RuntimeError: no image for this device"
    found = [dict.fromkeys(("ssm_kit", "peer"), 1e-7)] * 2
    rows = list(gpu.measure([case], found, H200))  # here it fails while it is timed
    assert [row["pass"] for row in rows] == ["forward", "forward + backward"]
    assert all("no image" in row[name]["refused"] for row in rows for name in ("ssm_kit", "peer"))
    assert "refused" in gpu.line(rows[0])


def test_peers_may_miss_our_limit_by_a_factor():
    case = SimpleNamespace(dtype=torch.bfloat16)
    ours, peer = (SimpleNamespace(name=name) for name in ("ssm_kit", "peer"))
    assert gpu.refusal(6e-3, case, ours) == "relative error 6.0e-03 against float64, allowed 5e-03"
    assert gpu.refusal(6e-3, case, peer) is None
    assert "allowed 2e-02" in gpu.refusal(3e-2, case, peer)
    assert gpu.refusal(float("nan"), case, peer) is not None


def test_the_readme_shows_the_stored_measurements():
    text = (Path(gpu.__file__).parent / "README.md").read_text(encoding="utf-8")
    shown = text.split(gpu_table.START)[1].split(gpu_table.END)[0]
    assert shown.strip().splitlines() == "\n".join(gpu_table.lines()).strip().splitlines()


def test_the_gradient_that_is_timed_lies_as_the_output_does(monkeypatch):
    monkeypatch.setattr(gpu, "generator", torch.Generator)
    channels_last = torch.zeros(2, 5, 3).mT
    noise = gpu.noise_like(channels_last, torch.bfloat16)
    assert (noise.shape, noise.stride(), noise.dtype) == ((2, 3, 5), channels_last.stride(), torch.bfloat16)
    assert noise.count_nonzero() > 0


def test_what_is_timed_and_profiled_computes_all_gradients(monkeypatch):
    monkeypatch.setattr(gpu, "generator", torch.Generator)
    tensors = {"a": torch.tensor([2.0, 3.0]), "b": torch.tensor([5.0, 7.0])}
    ours = Contender("ssm_kit", lambda a, b: (a * b, a + b))
    case = Case("product", "2", lambda small: tensors, None, (ours,), Work(1.0), Work(1.0), torch.float32)
    call = gpu_profile.calling(case)
    of_a, of_b = call()
    torch.testing.assert_close(of_a / tensors["b"], of_b / tensors["a"])
    assert of_a.count_nonzero() == 2
    assert all(torch.equal(*pair) for pair in zip(call(), (of_a, of_b), strict=True))
    y, _ = gpu_profile.calling(replace(case, backward=None))()
    assert y.tolist() == [10.0, 21.0]


def test_relative_error():
    assert relative_error(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0])) == 0
    assert relative_error(torch.tensor([3.0, 4.4]), torch.tensor([3.0, 4.0])) == pytest.approx(0.08)


def test_parts_are_checked_then_timed_and_one_that_dies_is_left_out(no_gpu, monkeypatch, tmp_path, capsys):
    case = a_case(first_order_scan)
    monkeypatch.setattr(gpu, "PARTS", {"scan": lambda: [case], "dies": lambda: pytest.fail("it died")})
    monkeypatch.setattr(gpu, "timed", lambda *_: {"ms": [1.0, 1.0, 1.0], "timing": "graph"})
    monkeypatch.setattr(gpu, "ceilings", lambda: H200)

    def child(part, stage, folder):
        work = (lambda: None) if part == "dies" else lambda: gpu.work_as_child(part, stage, folder)
        return SimpleNamespace(wait=lambda timeout=None: work())

    monkeypatch.setattr(gpu, "child", child)
    data = gpu.measure_all(["scan", "dies"], tmp_path, 60)
    assert data.keys() == {"scan"}
    assert [row["ssm_kit"]["ms"] for row in data["scan"]["rows"]] == [[1.0, 1.0, 1.0]] * 2
    assert data["scan"]["ceilings"]["copy_per_second"] == round(H200.copy)
    assert "not measured: dies" in capsys.readouterr().out


def test_a_run_replaces_its_parts_and_keeps_the_others(tmp_path):
    made = {"commit": "a" * 40, "date": "2026-01-01", "gpu": "G", "torch": "2.1", "triton": "3.1"}
    out = tmp_path / "kernels.json"
    first = gpu.added(gpu.stored(out, made), made, {"ssd": {"rows": [1]}, "steps": {"rows": [2]}}, 1.0)
    out.write_text(json.dumps(first))
    later = made | {"commit": "b" * 40, "date": "2026-01-02"}
    both = gpu.added(gpu.stored(out, later), later, {"steps": {"rows": [3]}}, 2.0)
    results.validate(both, "kernels")
    assert both["wall_s"] == 3.0
    assert both["data"] == {
        "ssd": {"commit": "a" * 40, "date": "2026-01-01", "rows": [1]},
        "steps": {"commit": "b" * 40, "date": "2026-01-02", "rows": [3]},
    }
    with pytest.raises(SystemExit, match=r"out: expected a file measured with torch 2.2; .* has 2.1"):
        gpu.stored(out, made | {"torch": "2.2"})


def test_without_a_commit_nothing_is_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "measure_all", lambda *_: pytest.fail("measured in vain"))
    monkeypatch.setattr(sys, "argv", ["gpu", "--out", str(tmp_path / "kernels.json"), "--commit", "unknown"])
    with pytest.raises(SystemExit, match="commit: expected 7 to 40 hexadecimal digits; got 'unknown'"):
        gpu.main()


def test_what_is_not_done_in_time_is_ended(monkeypatch):
    asked = []

    class Endless:
        def wait(self, timeout=None):
            asked.append(timeout)
            if timeout is not None:
                raise subprocess.TimeoutExpired("endless", timeout)

        def kill(self):
            asked.append("kill")

    gpu.wait([Endless()], until=0)
    assert asked == [0.1, "kill", None]


NCU = """the program prints
==PROF== Connected to process 7
"ID","Process ID","Kernel Name","gpu__time_duration.sum","gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed",\
"sm__inst_issued.avg.pct_of_peak_sustained_active","sm__inst_executed_pipe_xu.avg.pct_of_peak_sustained_active",\
"sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active",\
"smsp__average_warps_issue_stalled_selected_per_issue_active.ratio",\
"smsp__average_warps_issue_stalled_math_pipe_throttle_per_issue_active.ratio",\
"smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active.ratio"
"","","","ns","%","%","%","%","inst","inst","inst"
"0","7","walk(float *, int)","1,234.5","41.5","77.2","88.8","","1","2.5","3.5"
"""


def test_a_profile_says_what_a_launch_keeps_busy_and_waits_for():
    (launch,) = gpu_profile.launches(NCU)
    assert gpu_profile.summary(launch) == {
        "kernel": "walk",
        "memory": 41.5,
        "issue slots": 77.2,
        "warps": None,
        "pipes": [("xu", 88.8)],
        "waits for": [("long_scoreboard", 3.5), ("math_pipe_throttle", 2.5)],
    }
    assert gpu_profile.number("1,234.5") == 1234.5
    assert " ".join(gpu_profile.line(launch).split()).startswith("walk 1,234.5 ns memory 42 %, issue slots 77 % |")
    assert gpu_profile.short("void at::<unnamed>::fill<float, at::Fill<float>>(int, T2)") == "at::fill"
    assert gpu_profile.launches("nothing") == []
