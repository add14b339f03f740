from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from studies.evaluate.ablations import Row
from studies.evaluate.swd_students import Student, Timing
from tests.cli.conftest import Outcome
from tuner import presets
from tuner.cli._ablate_oss import _EXPLANATION
from tuner.cli._ablate_swd import _ORDERS, _STUDENTS
from tuner.cli._ablations import show
from tuner.distill.swd import SwdSettings
from tuner.models import ModelOptions
from tuner.presets import Preset, Score
from tuner.schedule import Schedule, Stage

Run = Callable[..., Outcome]


@pytest.fixture(scope="module")
def folder(flux_pipe: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "pipe"
    flux_pipe.save_pretrained(path)
    return str(path)


def test_one_search_writes_a_preset_for_every_number_of_steps(run: Run, folder: str, tmp_path: Path) -> None:
    arguments = ("--model", folder, "--teacher-steps", "6", "--images", "2", "--size", "32")
    many = ("--steps", "2-3,6", "--distance", "x_t", "-o", str(tmp_path / "many"), "--json")
    outcome = run("schedule", "oss", *arguments, *many)
    data = json.loads(outcome.out)
    assert outcome.code == 0
    passes = data["image_forward_passes"]
    assert outcome.err.splitlines()[-1] == f"image forward passes: {passes}/{passes}"
    assert [row["steps"] for row in data["presets"]] == [2, 3, 6]
    for row in data["presets"]:
        written = presets.load(row["preset"])
        assert (written.schedule.steps, written.height, written.width) == (row["steps"], 32, 32)
        assert "2503.21774" in written.source
        assert written.cost is not None
        assert written.cost.nfe == row["steps"]
    file = tmp_path / "three.yaml"
    assert run("schedule", "oss", *arguments, "--steps", "3", "--distance", "x_t", "-o", str(file)).code == 0
    assert presets.load(file).schedule == presets.load(data["presets"][1]["preset"]).schedule
    assert "--" not in presets.load(file).notes
    quick = (*arguments, "--steps", "3", "--solver", "dpmpp-2m", "--coarse-to-fine", "--polish", "-o", str(file))
    assert run("schedule", "oss", *quick).code == 0
    assert presets.load(file).notes.endswith("distance x_0, solver dpmpp-2m, --coarse-to-fine, --polish.")
    assert presets.load(file).schedule.solver == "dpmpp-2m"


def test_a_preset_is_retimed_stage_by_stage(run: Run, folder: str, tmp_path: Path) -> None:
    staged = Preset(
        name="staged",
        model=folder,
        source="a test",
        height=32,
        width=32,
        schedule=Schedule(stages=(Stage(scale=0.5, sigmas=(1, 0.5, 0)), Stage(sigmas=(0.9, 0.2, 0)))),
    )
    path = presets.save(staged, tmp_path / "staged.yaml")
    arguments = ("--preset", str(path), "--teacher-steps", "9", "--images", "2", "--calibrate")
    outcome = run("schedule", "oss", *arguments, "-o", str(tmp_path / "new.yaml"))
    assert outcome.code == 0, outcome.err
    retimed = presets.load(tmp_path / "new.yaml")
    assert [stage.steps for stage in retimed.schedule.stages] == [2, 2]
    assert all(len(stage.amplitudes) == 2 for stage in retimed.schedule.stages)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["oss", "--model", "tiny", "-o", "x.yaml"], "Give one of --steps, --all-steps and --preset"),
        (["oss", "--steps", "3", "-o", "x.yaml"], "Give --model"),
        (["oss", "--model", "tiny", "--steps", "3-5", "-o", "x.yaml"], "name a folder"),
        (["oss", "--model", "tiny", "--steps", "3", "--solver", "dpmpp-3m", "-o", "x.yaml"], "another order"),
        (["oss", "--model", "tiny", "--steps", "five", "-o", "x.yaml"], "is no number of steps"),
        (["oss", "--model", "tiny", "--steps", "9", "--teacher-steps", "5", "-o", "x.yaml"], "--teacher-steps"),
    ],
)
def test_wrong_use_is_one_line(run: Run, arguments: list[str], message: str) -> None:
    outcome = run("schedule", *arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


def test_ablations_need_a_bottleneck(run: Run) -> None:
    outcome = run("ablate", "bottleneck", "--model", "tiny", "--preset", "mrflow-flux-12+1")
    assert outcome.code == 2
    assert "need a bottleneck" in outcome.err


def test_ablations_print_one_row_per_part(run: Run, folder: str, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red fox\nfox\na blue circle\na red square\n")
    file = tmp_path / "table.md"
    common = ("--model", folder, "--size", "64", "--images", "2", "--objective", "clip:tiny")
    outcome = run("ablate", "bottleneck", *common, "--prompts", str(prompts), "-o", str(file), "--json")
    assert outcome.code == 0
    rows = json.loads(outcome.out)["rows"]
    assert outcome.err.splitlines()[-1] == f"images: {2 * len(rows)}/{2 * len(rows)}"
    assert [row["name"] for row in rows][:2] == ["whole method", "baseline"]
    assert all(set(row["scores"]) == {"clip"} for row in rows)
    assert "| without renoising |" in file.read_text()


def test_oss_ablations_print_one_row_per_choice(run: Run, folder: str, tmp_path: Path) -> None:
    file = tmp_path / "table.md"
    common = ("--model", folder, "--size", "32", "--steps", "2", "--images", "2", "--search-images", "1")
    outcome = run("ablate", "oss", *common, "-o", str(file), "--json")
    assert outcome.code == 0, outcome.err
    data = json.loads(outcome.out)
    assert [row["name"] for row in data["rows"]][:3] == ["whole method", "plain steps", "latents compared"]
    assert all(set(row["scores"]) == {"psnr"} for row in data["rows"])
    text = file.read_text()
    assert "| plain steps |" in text
    assert "100 plain steps" in text


def test_oss_ablations_fit_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    score = Score(mean=126.473, delta=-10.25, ci95=(-12.5, -10.111))
    rows = [Row(name, 0.1, {"psnr": score}, {"psnr": (28.07, -1.6)}) for name in ("teacher of 25x the steps", "b")]
    show("title", rows, "explanation", {}, None, as_json=False, digits=2)
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert sum("126.47 -10.25 [-12.50, -10.11]" in line for line in lines) == 2  # no cell is broken


def test_swd_ablations_print_both_tables(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The students are the shipped one; what trains them has tests of its own."""
    wanted: list[dict[str, SwdSettings]] = []

    def trained(students: dict[str, SwdSettings], *_: object) -> dict[str, Student]:
        wanted.append(students)
        shipped = Path(presets.__file__).parent / "presets" / "swd-tiny-4.yaml"
        return {name: Student(shipped, Timing(1.5, 7, 4)) for name in students}

    monkeypatch.setattr("studies.evaluate.swd_students.train_all", trained)
    data, file = tmp_path / "data", tmp_path / "table.md"
    data.mkdir()
    lines = []
    for number in range(2):
        Image.new("RGB", (64, 64), "gray").save(data / f"{number}.png")
        lines.append(json.dumps({"file_name": f"{number}.png", "text": "red ring on plain gray"}))
    (data / "metadata.jsonl").write_text("\n".join(lines))
    arguments = ("--model", "tiny", "--data", str(data), "--out", str(tmp_path / "out"), "--steps", "4")
    outcome = run("ablate", "swd", *arguments, "--lora-rank", "3", "--images", "2", "-o", str(file), "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert [row["name"] for row in found["orders"]][:3] == ["A at 0.4", "B at 0.4", "C at 0.4"]
    assert [row["name"] for row in found["rows"]][:3] == ["whole method", "untrained", "no time shift"]
    assert found["training"]["no patch loss"] == {"seconds_per_step": 1.5, "steps": 7, "first": 4}
    assert {settings.rank for settings in wanted[0].values()} == {3}
    assert "| C at 0.8 |" in file.read_text()
    assert "| naive patch loss |" in file.read_text()
    refused = run("ablate", "swd", *arguments, "--loss", "mmd")
    assert refused.code == 2
    assert "give --loss mmd,dmd,gan" in refused.err


def test_swd_ablations_fit_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    score = Score(mean=0.473, delta=-1.25, ci95=(-1.5, -1.111))
    trained = Row("2 full-size steps", 0.00046473, {"image_reward": score}, {"image_reward": (1.03, -0.09)})
    order = Row("C at 0.8", 0.00046473, {"image_reward": score}, {"image_reward": (340.2, 327.3)})
    for row, text in ((trained, _STUDENTS.format(steps=10000)), (order, _ORDERS)):
        show("title", [row, replace(row, tflops=0.1)], text, {}, None, as_json=False)
        lines = capsys.readouterr().out.splitlines()
        assert all(len(line) <= 80 for line in lines)
        assert sum("0.473 -1.250 [-1.500, -1.111]" in line for line in lines) == 2  # no cell is broken


def test_a_reference_beyond_the_most_steps_is_refused(run: Run) -> None:
    outcome = run("ablate", "oss", "--model", "tiny", "--steps", "21")
    assert outcome.code == 2
    assert "give 20 or fewer" in outcome.err


def test_a_published_list_is_resized(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "eight.yaml"
    outcome = run("schedule", "resize", "--preset", "oss-flux-10", "--steps", "8", "-o", str(path))
    assert outcome.code == 0, outcome.err
    resized, original = presets.load(path), presets.load("oss-flux-10")
    assert resized.schedule.steps == 8
    assert resized.schedule.stages[0].sigmas[4] == original.schedule.stages[0].sigmas[5] == 0.9471
    assert resized.cost is not None
    assert original.cost is not None
    assert resized.cost.tflops == pytest.approx(0.8 * original.cost.tflops, rel=1e-3)
    staged = run("schedule", "resize", "--preset", "bottleneck-flux-3x", "--steps", "8", "-o", str(path))
    assert staged.code == 2
    assert "one stage without reuse" in staged.err


def test_what_stands_below_the_oss_ablations_fits_a_terminal() -> None:
    text = _EXPLANATION.format(reference=1000, teacher=200, searched=100)
    assert all(len(line) <= 80 for line in text.splitlines())


def test_a_schedule_is_found_with_the_models_options(run: Run, folder: str, tmp_path: Path) -> None:
    """Text encoders that are freed change nothing, and what a preset needs is in it."""
    quick = ("--model", folder, "--teacher-steps", "4", "--images", "2", "--size", "32", "--steps", "2")
    kept, freed, guided = (tmp_path / f"{name}.yaml" for name in ("kept", "freed", "guided"))
    assert run("schedule", "oss", *quick, "-o", str(kept)).code == 0
    assert run("schedule", "oss", *quick, "--free-text-encoders", "-o", str(freed)).code == 0
    assert run("schedule", "oss", *quick, "--guidance", "9", "-o", str(guided)).code == 0
    assert presets.load(freed) == presets.load(kept)
    assert presets.load(kept).model_options is None
    assert presets.load(guided).model_options == ModelOptions(guidance=9)
