"""What people have in other tools is a start of a search, as a file of its own or by way of a preset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from studies import SearchSettings
from studies.plan.plan import make_plan
from studies.plan.starts import start
from tuner import exporters, models, presets
from tuner.cli.main import main
from tuner.errors import UserError
from tuner.exporters import ExportOptions
from tuner.models import ModelOptions
from tuner.presets import Preset
from tuner.schedule import Schedule, Stage

TINY = models.blueprint("tiny")
SCHEDULE = Schedule(stages=(Stage(scale=0.5, sigmas=(1, 0.6, 0)), Stage(sigmas=(0.5, 0), resample="area")))


def preset_of(schedule: Schedule, **more: Any) -> Preset:
    return Preset(name="x", model="tiny", source="x", height=64, width=64, schedule=schedule, **more)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Writes one schedule in every form that is read, and a list of sigmas."""
    workflow = exporters.load("comfyui").export(preset_of(SCHEDULE), TINY, ExportOptions())
    paths = {name: tmp_path / name for name in ("workflow.json", "neutral.json", "saved.png", "line.txt")}
    paths["workflow.json"].write_text(workflow)
    paths["neutral.json"].write_text(exporters.load("sigmas").export(preset_of(SCHEDULE), None, ExportOptions()))
    info = PngInfo()
    info.add_text("prompt", workflow)
    Image.new("RGB", (8, 8)).save(paths["saved.png"], pnginfo=info)
    paths["line.txt"].write_text("1, 0.7, 0.3, 0")
    return paths


def settings_of(*starts: Path) -> SearchSettings:
    return SearchSettings(model="tiny", budget="3x", objectives=("sharpness",), start=tuple(map(str, starts)))


def test_a_search_starts_from_the_files_of_other_tools(files: dict[str, Path]) -> None:
    plan = make_plan(settings_of(files["workflow.json"], files["line.txt"]))
    found = {reference.label: reference.schedule for reference in plan.references}
    assert found["workflow"] == SCHEDULE
    assert found["line"] == Schedule(stages=(Stage(sigmas=(1, 0.7, 0.3, 0)),))
    for name in ("neutral.json", "saved.png"):
        assert start(str(files[name]), TINY, TINY.size, None).schedule == SCHEDULE


def test_what_import_writes_is_the_same_start(files: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "imported.yaml"
    main(["import", str(files["workflow.json"]), "--model", "tiny", "-o", str(path)])
    found = {reference.schedule for reference in make_plan(settings_of(path, files["workflow.json"])).references}
    assert SCHEDULE.content_hash in {schedule.content_hash for schedule in found}
    assert start(str(path), TINY, TINY.size, None).schedule == SCHEDULE


def test_guidance_of_its_own_becomes_that_of_its_stages(tmp_path: Path) -> None:
    known = models.blueprint("flux")
    for scale, own in ((known.guidance, None), (2.0, 2.0)):
        preset = preset_of(SCHEDULE, model_options=ModelOptions(guidance=scale))
        path = presets.save(preset, tmp_path / "own.yaml")
        found = start(str(path), known, known.size, None)
        assert [stage.guidance for stage in found.schedule.stages] == [own, own]


@pytest.mark.parametrize(
    ("text", "message"), [("one, two", "does not become a preset"), ("1, 0.5, 0.7, 0", "strictly decrease")]
)
def test_what_is_no_start_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "line.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        make_plan(settings_of(path))
    assert "\n" not in str(raised.value)


def test_guidance_that_the_model_does_not_take_is_one_line(tmp_path: Path) -> None:
    schnell = models.blueprint("flux-schnell")
    path = presets.save(preset_of(SCHEDULE, model_options=ModelOptions(guidance=2.0)), tmp_path / "own.yaml")
    with pytest.raises(UserError, match="takes no guidance scale"):
        start(str(path), schnell, schnell.size, None)
