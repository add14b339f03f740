from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
import yaml

import tuner
from tests.small_flux import stock_latents
from tuner import presets
from tuner.errors import UserError
from tuner.models import wrap
from tuner.presets import Cost, Preset, Provenance, Score
from tuner.schedule import Schedule, Stage

FOLDER = Path(presets.__file__).parent / "presets"


@pytest.fixture
def preset() -> Preset:
    return Preset(
        name="mine",
        model="small",
        source="study s",
        height=32,
        width=48,
        schedule=Schedule(stages=(Stage(scale=0.5, sigmas=(1, 0.4, 0)), Stage(sigmas=(0.7, 0.1, 0)))),
        cost=Cost(tflops=1.5, nfe=4, speedup=3.2),
        scores={"clip": Score(mean=0.1, delta=-0.2, ci95=(-0.3, -0.1))},
        provenance=Provenance(
            study="s",
            trial=3,
            seed=0,
            image_seeds=0,
            prompts_hash="abc",
            prompts=8,
            objectives=("clip:tiny",),
            versions={"torch": "2"},
            created="2026-01-01T00:00:00+00:00",
        ),
    )


def test_saving_and_loading_changes_nothing(preset: Preset, tmp_path: Path) -> None:
    path = presets.save(preset, tmp_path / "deep" / "preset.yaml")
    assert presets.load(path) == preset


@pytest.mark.parametrize("name", presets.available())
def test_shipped_presets_are_named_by_their_file_and_cite_their_source(name: str) -> None:
    shipped = presets.load(name)
    assert shipped.name == name
    assert "arXiv" in shipped.source
    assert shipped.notes


def test_a_picture_has_a_panel_for_every_preset() -> None:
    from studies.report.schedule_figure import schedules_figure

    shown = [presets.load(name) for name in presets.available()]
    panels = [axes for axes in schedules_figure(shown).axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == [preset.name for preset in shown]
    solid = [[line for line in axes.lines if line.get_linestyle() == "-"] for axes in panels]
    assert [len(lines) for lines in solid] == [len(preset.schedule.stages) for preset in shown]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("schedule: [", "not valid YAML"),
        ("- 1", "valid dictionary"),
        ("name: x\n", "Field required"),
        ("", "breaks a rule"),
    ],
)
def test_broken_files_say_what_is_wrong(text: str, rule: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=rule) as raised:
        presets.load(path)
    assert "\n" not in str(raised.value)


def test_increasing_sigmas_are_named_with_their_place(preset: Preset, tmp_path: Path) -> None:
    data: dict[str, Any] = preset.model_dump(mode="json")
    data["schedule"]["stages"][1]["sigmas"] = [0.1, 0.7, 0]
    path = tmp_path / "up.yaml"
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(UserError, match=r"schedule\.stages\.1\.sigmas: sigmas must strictly decrease, but 0\.7"):
        presets.load(path)


@pytest.mark.parametrize("name", presets.available())
def test_the_schema_accepts_every_shipped_preset_and_what_is_saved(name: str, tmp_path: Path) -> None:
    jsonschema.validate(yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8")), presets.schema())
    path = presets.save(presets.load(name), tmp_path / "x.yaml")
    assert path.read_text(encoding="utf-8").startswith("# yaml-language-server: $schema=preset.schema.json\n")
    jsonschema.validate(yaml.safe_load(path.read_text(encoding="utf-8")), presets.schema())


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 3, "sigmas": [1, 0]},
        {"scale": 1.0},
        {"sigmas": [1, 0], "strength": 0.5},
        {"sigmas": [1, 0], "resample": "sinc"},
        {"sigmas": [1, 0], "kernel": "area"},
    ],
)
def test_the_schema_refuses_what_loading_refuses(preset: Preset, change: dict[str, Any], tmp_path: Path) -> None:
    data = preset.model_dump(mode="json", exclude_none=True)
    data["schedule"]["stages"] = [change]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, presets.schema())
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    with pytest.raises(UserError, match="breaks a rule"):
        presets.load(path)


def test_a_line_of_sigmas_is_read_and_ratios_get_a_remedy() -> None:
    assert Stage(sigmas="1.0, 0.8, 0.5, 0.0").sigmas == (1.0, 0.8, 0.5, 0.0)
    with pytest.raises(ValueError, match=r"k / \(1 \+ k\)"):
        Stage(sigmas=(14.6, 3.7, 0))
    with pytest.raises(ValueError, match="numbers between commas"):
        Stage(sigmas="one, two")


def test_missing_presets_get_a_near_miss_or_the_list(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Did you mean 'bottleneck-flux-3x'"):
        presets.load("bottleneck-flux-3")
    with pytest.raises(UserError, match="does not exist"):
        presets.load(tmp_path / "none.yaml")


def test_an_unwritable_place_is_a_user_error(preset: Preset, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="writable place"):
        presets.save(preset, tmp_path / "file" / "preset.yaml")


def test_generate_runs_a_preset_file_on_a_stock_pipeline(preset: Preset, tmp_path: Path, flux_pipe: Any) -> None:
    path = presets.save(preset, tmp_path / "preset.yaml")
    steps: list[tuple[int, float]] = []
    result = tuner.generate(flux_pipe, "a red fox", preset=path, on_step=lambda *step: steps.append(step))
    assert [image.size for image in result.images] == [(48, 32)]
    assert steps == [(0, 1.0), (0, 0.4), (1, 0.7), (1, 0.1)]
    again = tuner.generate(flux_pipe, ["a red fox", "a blue circle"], preset=preset, seed=[0, 5])
    assert len(again.images) == 2


def test_generate_takes_a_bare_schedule_and_the_models_size(flux_pipe: Any) -> None:
    model = wrap(flux_pipe)
    schedule = model.blueprint.plain(2, (32, 32))
    image = tuner.generate(model, "a red fox", preset=schedule, seed=4, height=32, width=32).images[0]
    stock = model.decode(stock_latents(flux_pipe, ["a red fox"], [4], 2, (32, 32)))[0]
    first, second = (torch.tensor(list(picture.tobytes()), dtype=torch.int16) for picture in (image, stock))
    assert int((first - second).abs().max()) <= 1


def test_generate_wants_one_seed_per_prompt(flux_pipe: Any, preset: Preset) -> None:
    with pytest.raises(UserError, match="2 seeds for 1 prompts"):
        tuner.generate(flux_pipe, "a", preset=preset, seed=[1, 2])


def test_the_public_names_are_found_without_importing_them_first() -> None:
    code = (
        "import tuner\n"
        "assert {'Schedule', 'attach', 'generate', 'presets'} <= set(tuner.__all__) <= set(dir(tuner))\n"
        "assert all(getattr(tuner, name) is not None for name in tuner.__all__)\n"
        "print(len(tuner.presets.available()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == len(presets.available())
