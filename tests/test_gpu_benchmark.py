from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_models import SMALL, Bench
from benchmarks.stock import in_turn
from tuner.sampling import sample

ROWS = {
    "baseline": ["flux: baseline"],
    "schedules": ["flux: 3 steps", "flux: 2 steps", "flux: bottleneck-flux-3x", "flux: ralu-flux-4x"],
    "wan": [
        "wan2.1-1.3b: one step at scale 1",
        "wan2.1-1.3b: one step at scale 0.5",
        "wan2.1-1.3b: 8 steps",
        "wan2.1-1.3b: 3 steps",
        "wan2.1-1.3b: bottleneck-flux-3x",
    ],
}


def measured(path: Path, *options: str) -> tuple[int, dict[str, Any]]:
    arguments = ["--small", "--device", "cpu", "--repeats", "1", "-o", str(path), *options]
    with torch.compiler.set_stance("force_eager"):  # compiling takes longer than everything else together
        code = gpu.main(arguments)
    return code, json.loads(path.read_text())


def test_the_script_measures_what_it_says_with_small_networks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, result = measured(tmp_path / "gpu.json", "--rows", *ROWS)
    assert code == 0
    assert (result["device"], result["small"]) == ("cpu", True)
    rows = {row["name"]: row for row in result["rows"]}
    assert list(rows) == [name for names in ROWS.values() for name in names]
    assert rows["flux: baseline"]["speedup"] == rows["flux: baseline"]["tflops_ratio"] == 1
    assert rows["flux: baseline"]["latents_close"]
    assert rows["flux: 2 steps"]["tflops_ratio"] == pytest.approx(4)
    for row in rows.values():
        assert row["tflops_per_second"] == pytest.approx(row["tflops"] / row["seconds"])
    one_step, eight = rows["wan2.1-1.3b: one step at scale 1"], rows["wan2.1-1.3b: 8 steps"]
    assert eight["seconds"] == pytest.approx(8 * one_step["seconds"])
    assert eight["tflops"] == pytest.approx(8 * one_step["tflops"])

    capsys.readouterr()
    assert gpu.main(["--table", str(tmp_path / "gpu.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines) <= 100
    assert sum(line.startswith("| flux: ") for line in lines) == 5


def test_steps_scores_and_compiled_steps_are_measured(tmp_path: Path) -> None:
    code, result = measured(tmp_path / "gpu.json", "--rows", "steps", "whole", "compiled")
    rows = {row["name"]: row for row in result["rows"]}
    assert (code, [name for name, row in rows.items() if "seconds" not in row]) == (0, [])
    assert [row["batch"] for name, row in rows.items() if "batch of" in name and "flux" in name] == [1, 4] * 3
    assert rows["flux: one step at scale 0.5, batch of 4"]["height"] == 32
    assert rows["flux: one step at scale 1, compiled"]["plain_seconds"] > 0
    assert sum(rows["flux: bottleneck-flux-3x, decoded and scored"]["share_of"].values()) == pytest.approx(1)


def test_a_row_that_cannot_be_measured_says_why_and_the_next_goes_on(tmp_path: Path) -> None:
    def stop(error: Exception) -> Callable[[], dict[str, Any]]:
        def measure() -> dict[str, Any]:
            raise error

        return measure

    recorder = gpu.Recorder(tmp_path / "gpu.json", {}, deadline=60)
    recorder.add("large", stop(torch.OutOfMemoryError("CUDA out of memory")))
    recorder.add("missing", stop(ModuleNotFoundError("no open_clip", name="open_clip")))
    assert not recorder.failed
    recorder.add("broken", stop(RuntimeError("the output holds NaN or infinity.")))
    recorder.add("good", lambda: {"seconds": 1.0})
    assert recorder.failed
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert [row.get("left_out") or row.get("failed") or row["seconds"] for row in rows] == [
        "does not fit into the memory",
        "open_clip is not installed",
        "RuntimeError: the output holds NaN or infinity.",
        1.0,
    ]


def test_no_row_begins_after_the_deadline(tmp_path: Path) -> None:
    code, result = measured(tmp_path / "gpu.json", "--deadline", "0", "--rows", "baseline")
    assert code == 0
    assert [row["left_out"] for row in result["rows"]] == ["0 s were over"]


def test_our_loop_and_the_stock_pipeline_do_the_same_work() -> None:
    bench = Bench("flux", "cpu", small=True)
    calls: list[torch.Size] = []
    bench.network.register_forward_pre_hook(
        lambda network, args, given: calls.append(given["hidden_states"].shape), with_kwargs=True
    )
    ours = sample(bench.model, bench.known.baseline(), bench.text(), [0])
    stock = bench.stock(bench.known.steps).float()
    assert (ours - stock).std() < 0.01 * stock.std()  # the stock pipeline rounds its latents after every step
    assert calls == [(1, 16, 64)] * (2 * bench.known.steps)


@pytest.mark.parametrize("name", SMALL)
def test_random_weights_are_as_loading_leaves_them(name: str, tmp_path: Path) -> None:
    network = Bench(name, "cpu", small=True).network
    network.save_pretrained(tmp_path)
    loaded = type(network).from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    ours, theirs = (dict([*some.named_parameters(), *some.named_buffers()]) for some in (network, loaded))
    assert {key: value.dtype for key, value in ours.items()} == {key: value.dtype for key, value in theirs.items()}
    assert {value.dtype for value in ours.values()} > {torch.bfloat16} or name == "flux"
    for key, value in network.named_buffers():
        assert torch.equal(value, theirs[key])


def test_what_is_timed_beside_each_other_is_timed_in_turn() -> None:
    order: list[str] = []
    ways = {name: lambda name=name: order.append(name) for name in ("a", "b")}

    def timed(run: Callable[[], object]) -> int:
        run()
        return len(order)

    assert in_turn(ways, timed, runs=2) == {"a": [3, 6], "b": [4, 5]}
    assert "".join(order) == "ababba"


def test_full_size_networks_are_refused_on_a_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        gpu.main(["--device", "cpu"])
    assert stop.value.code == 2
    assert "need a GPU" in capsys.readouterr().err
