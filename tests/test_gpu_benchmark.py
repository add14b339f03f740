from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from benchmarks.stock import in_turn
from tuner import presets


def test_the_script_measures_what_it_says_with_small_networks(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    with torch.compiler.set_stance("force_eager"):  # compiling takes longer than everything else together
        assert gpu.main(["--small", "--device", "cpu", "--repeats", "1", "-o", str(output)]) == 0
    result = json.loads(output.read_text())
    assert result["device"] == "cpu"
    flux, wan = result["models"]
    assert (flux["model"], flux["frames"], wan["model"], wan["frames"]) == ("flux", 1, "wan2.1-1.3b", 5)
    shipped = [presets.load(name) for name in presets.available()]
    made_for_flux = {
        preset.name
        for preset in shipped
        if preset.model == "flux" and all(stage.resample != "pixel" for stage in preset.schedule.stages)
    }
    assert {run["schedule"] for run in flux["runs"]} == {"baseline, 6 steps", "3 steps", "2 steps", "1 steps"} | (
        made_for_flux
    )
    for model in result["models"]:
        assert model["runs"][0]["speedup"] == model["runs"][0]["tflops_ratio"] == 1
        assert model["runs"][1]["tflops_ratio"] == pytest.approx(2)
        assert all(run["seconds"] > 0 for run in model["runs"])
        assert all({"plain_seconds", "compiled_seconds"} < row.keys() for row in model["steps"])
    assert flux["ours_over_stock"] > 0


def test_our_loop_and_the_stock_pipeline_do_the_same_work() -> None:
    bench = gpu.Bench("flux", "cpu", small=True, repeats=1)
    calls: list[torch.Size] = []
    bench.network.register_forward_pre_hook(
        lambda network, args, given: calls.append(given["hidden_states"].shape), with_kwargs=True
    )
    latents = {name: run() for name, run in bench.loops().items()}
    assert calls == [(1, 64, 64)] * (2 * bench.known.steps)
    torch.testing.assert_close(latents["ours"], latents["stock"].float(), atol=0.05, rtol=0)


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
