from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.cli.conftest import Outcome
from tuner import presets
from tuner.presets import Preset
from tuner.schedule import Schedule, Stage

Run = Callable[..., Outcome]


@pytest.fixture
def small_preset(flux_pipe: Any, tmp_path: Path) -> Path:
    folder = tmp_path / "pipe"
    flux_pipe.save_pretrained(folder)
    preset = Preset(
        name="small",
        model=str(folder),
        source="a test",
        height=32,
        width=48,
        schedule=Schedule(stages=(Stage(scale=0.5, sigmas=(1, 0.5, 0)), Stage(sigmas=(0.6, 0)))),
    )
    return presets.save(preset, tmp_path / "small.yaml")


def test_help_lists_every_command_without_importing_the_heavy_packages() -> None:
    code = (
        "import sys\n"
        "from tuner.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'diffusers', 'optuna', 'ray', 'mlflow', 'numpy'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy))\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for command in (
        "doctor",
        "eval",
        "export",
        "flops",
        "import",
        "models",
        "objectives",
        "presets",
        "prompts",
        "report",
        "sample",
        "search",
        "studies",
        "ui",
    ):
        assert f"\n  {command} " in out
    assert "HEAVY []" in out


def test_what_libraries_print_during_a_search_is_not_on_stdout(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def noisy(*_: object, **__: object) -> None:
        sys.stdout.write("(raylet) A worker died\n")
        raise RuntimeError("no trial succeeded")

    monkeypatch.setattr("studies.search", noisy)
    outcome = run("search", "--model", "tiny", "--budget", "3x", "--out", str(tmp_path), "--json")
    assert (outcome.code, outcome.out) == (1, "")
    assert "(raylet) A worker died" in outcome.err


def test_flops_prices_the_flux_baseline(run: Run) -> None:
    outcome = run("flops", "--model", "flux", "--json")
    data = json.loads(outcome.out)
    assert outcome.code == 0
    assert (data["nfe"], data["height"], data["width"], data["preset"]) == (50, 1024, 1024, None)
    assert data["tflops"] == pytest.approx(3719.5, rel=5e-4)
    assert data["speedup"] == 1
    assert [set(stage) for stage in data["stages"]] == [
        {"scale", "height", "width", "steps", "sigmas", "calls", "tflops_per_step"}
    ]


def test_flops_prices_a_preset_at_any_size(run: Run) -> None:
    arguments = ("flops", "--model", "flux", "--preset", "bottleneck-flux-3x", "--size", "512x768")
    data = json.loads(run(*arguments, "--json").out)
    assert [(stage["height"], stage["width"]) for stage in data["stages"]] == [(512, 768), (256, 384), (512, 768)]
    assert data["speedup"] == pytest.approx(data["baseline_tflops"] / data["tflops"])
    assert sum(s["steps"] * s["tflops_per_step"] for s in data["stages"]) == pytest.approx(data["tflops"])
    table = run(*arguments).out
    assert f"{data['speedup']:.2f}x" in table
    assert "256x384" in table


def test_presets_are_listed_and_shown(run: Run) -> None:
    rows = json.loads(run("presets", "--json").out)
    assert [row["name"] for row in rows] == presets.available()
    assert all(set(row) == {"name", "model", "source", "tflops", "nfe", "speedup"} for row in rows)
    shown = run("presets", "bottleneck-flux-3x", "--json")
    assert Preset.model_validate_json(shown.out) == presets.load("bottleneck-flux-3x")
    assert "2503.18940" in run("presets").out
    assert "stages:" in run("presets", "bottleneck-flux-3x").out


def test_sample_writes_the_image_that_generate_makes(run: Run, small_preset: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "fox.png"
    outcome = run("sample", str(small_preset), "a red fox", "-o", str(output), "--seed", "3")
    assert (outcome.code, outcome.out.strip()) == (0, str(output))
    image = Image.open(output)
    assert image.size == (48, 32)
    run("sample", str(small_preset), "a red fox", "-o", str(tmp_path / "again.png"), "--seed", "3")
    assert image.tobytes() == Image.open(tmp_path / "again.png").tobytes()
    run("sample", str(small_preset), "a red fox", "-o", str(tmp_path / "other.png"), "--seed", "4")
    assert image.tobytes() != Image.open(tmp_path / "other.png").tobytes()


def test_sample_draws_every_prompt_with_every_seed_beside_the_baseline(run: Run, tmp_path: Path) -> None:
    more = tmp_path / "more.txt"
    more.write_text("green disk on plain gray\n")
    output = tmp_path / "ring.png"
    arguments = ("plain:2", "red ring on plain gray", "--prompts", str(more), "--model", "tiny", "--seeds", "2")
    outcome = run("sample", *arguments, "--compare", "-o", str(output))
    assert outcome.code == 0
    paths = outcome.out.split()
    assert paths == [str(tmp_path / f"ring-{number:03d}.png") for number in range(4)]
    assert len({Image.open(path).tobytes() for path in paths}) == 4
    drawn = [line for line in outcome.err.splitlines() if line.startswith("seed")]
    assert [line.partition(":")[0] for line in drawn] == ["seed 0", "seed 1"] * 2
    assert "25.00x fewer TFLOPs" in outcome.err

    alone = tmp_path / "alone.png"
    assert run("sample", *arguments[:2], "--model", "tiny", "--seed", "1", "-o", str(alone)).code == 0
    both, image = Image.open(paths[1]), Image.open(alone)
    assert both.size == (2 * image.width, image.height)
    assert both.crop((image.width, 0, both.width, both.height)).tobytes() == image.convert("RGB").tobytes()


def test_plain_steps_are_priced_and_exported_of_a_named_model(run: Run) -> None:
    data = json.loads(run("flops", "--model", "tiny", "--preset", "plain:5", "--json").out)
    assert data["speedup"] == pytest.approx(10)
    assert "name: plain:5" in run("export", "plain:5", "--model", "tiny", "--format", "yaml").out
    refused = run("export", "plain:5", "--format", "yaml")
    assert (refused.code, "say of which with --model" in refused.err) == (2, True)


def test_doctor_reports_this_machine(run: Run, tmp_path: Path) -> None:
    data = json.loads(run("doctor", "--json", "--out", str(tmp_path / "none" / "yet")).out)
    assert data["cpu_cores"] >= 1
    assert data["out_writable"] is True
    assert data["hub_access"] is False  # the tests run with HF_HUB_OFFLINE
    assert all(version != "missing" for version in data["versions"].values())
    (tmp_path / "file").write_text("")
    assert json.loads(run("doctor", "--json", "--out", str(tmp_path / "file")).out)["out_writable"] is False


_SWD = ["distill", "swd", "--model", "tiny", "--data", "generated", "--steps", "1", "--out", "run"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["flops", "--model", "fluxx"], "Did you mean 'flux'?"),
        (["flops"], "Say on which model"),
        (["flops", "--preset", "plain:4"], "Say on which model"),
        (["flops", "--model", "flux", "--preset", "bottleneck-flux-3"], "Did you mean 'bottleneck-flux-3x'?"),
        (["flops", "--model", "flux", "--size", "1000"], "multiples of 16"),
        (["flops", "--model", "flux", "--size", "huge"], "'huge' is not a size"),
        (["flops", "--model", "flux", "--preset", "UP"], "sigmas must strictly decrease, but 0.9 follows 0.5"),
        (["presets", "nothing"], "Unknown preset 'nothing'"),
        (["sample", "bottleneck-flux-3x", "a fox", "-o", "fox.txt"], "names no image format"),
        (["sample", "bottleneck-flux-3x", "a fox", "-o", "fox.png", "--seed", "-1"], "-1 is not in the range"),
        (["ui", "--out", "nowhere"], "run a search first"),
        (["serch"], "No such command 'serch'"),
        ([*_SWD, "--scales", "1,0.5", "--sigmas", "1,0.5,0"], "scales must not fall"),
        ([*_SWD, "--scales", "0.5,1", "--sigmas", "1,0"], "2 sigmas and a 0 at the end"),
        ([*_SWD, "--scales", "half", "--sigmas", "1,0"], "'half' is not a list of numbers"),
        ([*_SWD, "--scales", "1", "--sigmas", "1,0", "--loss", "l2"], "losses.0"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    run: Run, arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    schedule = "{stages: [{sigmas: [1, 0.5, 0.9, 0]}]}"
    Path("up.yaml").write_text(
        f"{{name: up, model: flux, source: x, height: 64, width: 64, schedule: {schedule}}}"
    )
    outcome = run(*("up.yaml" if argument == "UP" else argument for argument in arguments))
    assert outcome.code == 2
    assert outcome.out == ""
    assert message in outcome.err
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1


def test_no_command_shows_the_help(run: Run) -> None:
    outcome = run()
    assert outcome.code == 2
    assert "Commands:" in outcome.err


def test_no_command_says_what_to_do_next(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "tuner search --model tiny --budget 3x" in run().err.splitlines()[-1]
    study = tmp_path / "runs" / "my study"
    study.mkdir(parents=True)
    (study / "settings.json").write_text("{}")
    assert "tuner report 'my study'  " in run().err.splitlines()[-1]
    assert "--resume" in run().err.splitlines()[-1]
    (study / "result.json").write_text("{}")
    assert "tuner report 'my study' -o report.html" in run().err.splitlines()[-1]


@pytest.mark.servers
def test_ui_serves_the_local_store_on_loopback(tmp_path: Path) -> None:
    import os
    import signal
    import socket
    import time
    import urllib.error
    import urllib.request

    import mlflow

    store = f"sqlite:///{tmp_path}/mlflow.db"
    mlflow.MlflowClient(store).create_experiment("tuner")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # A shell that starts the tests in the background makes them, and so their children, ignore SIGINT.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from tuner.cli.main import main; main()"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", code, "ui", "--out", str(tmp_path), "--port", str(port), "--no-open"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        for _ in range(240):
            try:
                body = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read().decode()
                break
            except (urllib.error.URLError, OSError):
                assert server.poll() is None
                time.sleep(0.5)
        assert "MLflow" in body
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 130
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)


def test_distilling_leaves_a_preset_that_sample_takes(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "student"
    arguments = ["--model", "tiny", "--scales", "0.5,1", "--sigmas", "1,0.7,0", "--data", "generated"]
    arguments += ["--images", "2", "--batch", "2", "--steps", "1", "--loss", "mmd", "--lora-rank", "2", "--cpu"]
    outcome = run("distill", "swd", *arguments, "--out", str(folder))
    assert (outcome.code, outcome.out.strip()) == (0, str(folder / "preset.yaml"))
    assert "training: 1/1 mmd" in outcome.err
    assert (tmp_path / "runs" / "mlflow.db").is_file()
    assert len(list((folder / "data").glob("*.png"))) == 2
    image = tmp_path / "ring.png"
    sampled = run("sample", outcome.out.strip(), "red ring on plain gray", "-o", str(image))
    assert (sampled.code, image.is_file()) == (0, True)
    again = run("distill", "swd", *arguments, "--out", str(folder))
    assert again.code == 2
    assert "--resume" in again.err
