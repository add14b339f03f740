"""What every registered exporter must do, whatever its target."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tuner import exporters, models, presets
from tuner.cli.main import main
from tuner.errors import UserError
from tuner.exporters import ExportOptions, RefusedError
from tuner.models import Blueprint
from tuner.presets import Preset
from tuner.schedule import Schedule, Stage

REFUSAL = re.compile(r"^.+ cannot carry (stage \d+|this preset) exactly: .+; .+\.$")
EVERY = exporters.available()
ALL_OF_A_PRESET = {"yaml", "mlflow"}
"""Formats that hold presets as they are."""


def shipped(name: str) -> tuple[Preset, Blueprint]:
    preset = presets.load(name)
    known = models.blueprint(preset.model)
    return preset, known.with_options(preset.model_options) if preset.model_options else known


def exported_or_refused(target: str, preset: Preset, blueprint: Blueprint, **options: Any) -> str:
    try:
        return exporters.load(target).export(preset, blueprint, ExportOptions(**options))
    except RefusedError as error:
        return str(error)


@pytest.mark.parametrize("target", EVERY)
@pytest.mark.parametrize("name", presets.available())
def test_a_shipped_preset_is_written_or_refused_with_a_reason(target: str, name: str) -> None:
    preset, blueprint = shipped(name)
    refusal = exporters.load(target).refusal(preset, blueprint, ExportOptions())
    assert refusal is None or REFUSAL.match(refusal)
    text = exported_or_refused(target, preset, blueprint)
    assert text == exported_or_refused(target, preset, blueprint)
    assert refusal is None or refusal == text


@pytest.mark.parametrize("target", EVERY)
def test_it_is_written_to_files_of_its_own_endings_alone(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    exporter = exporters.load(target)
    assert exporter.target
    assert all(re.fullmatch(r"\.[a-z]+", suffix) for suffix in exporter.suffixes)
    assert exporter.options <= set(ExportOptions.model_fields)
    with pytest.raises(SystemExit):
        main(["export", "ays-sdxl-10", "--format", target, "-o", "x.unknown"])
    assert "change the ending or the format" in capsys.readouterr().err


@pytest.mark.parametrize("target", EVERY)
def test_options_of_other_formats_are_refused(target: str) -> None:
    exporter = exporters.load(target)
    values: dict[str, Any] = {"text": True, "snippet": True, "substitute": "bicubic", "vae": "a.safetensors"}
    for option in values.keys() - exporter.options:
        with pytest.raises(UserError, match=f"has no use for --{option}"):
            exporter.check_options(target, ExportOptions(**{option: values[option]}))
    exporter.check_options(target, ExportOptions())


@pytest.mark.parametrize("target", sorted(set(EVERY) - ALL_OF_A_PRESET))
def test_a_field_that_an_exporter_does_not_know_is_refused(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = exporters.load(target)
    monkeypatch.setattr(type(exporter), "carried", frozenset())
    reusing = Schedule(stages=(Stage(sigmas=(1, 0.8, 0.5, 0), reuse=(1,)),))
    preset = Preset(name="x", model="flux", source="x", height=1024, width=1024, schedule=reusing)
    refusal = exporter.refusal(preset, models.blueprint("flux"), ExportOptions())
    assert refusal is not None
    assert "stage 1" in refusal
    assert "'reuse'" in refusal


@pytest.mark.parametrize("target", sorted(set(EVERY) - ALL_OF_A_PRESET))
def test_no_preset_leaves_without_what_it_asks_for(target: str) -> None:
    """Changes a preset in one respect at a time: each changes the text, or is refused."""
    blueprint = models.blueprint("flux")

    def preset(solver: str = "euler", cache: Any = None, **stage: Any) -> Preset:
        stages = (Stage(**({"sigmas": (1, 0.7, 0.4, 0)} | stage)),)
        schedule = Schedule(stages=stages, solver=solver, cache=cache)
        return Preset(name="x", model="flux", source="x", height=1024, width=1024, schedule=schedule)

    plain = exported_or_refused(target, preset(), blueprint)
    changes: list[Callable[[], Preset]] = [
        lambda: preset(solver="heun"),
        lambda: preset(solver="ab2"),
        lambda: preset(guidance=2.0),
        lambda: preset(reuse=(1,)),
        lambda: preset(amplitudes=((-1, 1), (-1, 1), (-1, 1))),
        lambda: preset(sigmas=(1, 0.7, 0.41, 0)),
        lambda: preset(cache={"kind": "taylorseer"}),
    ]
    assert len({plain, *(exported_or_refused(target, change(), blueprint) for change in changes)}) == 8


def test_an_unknown_format_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match=r"Unknown format .sigma.\. Did you mean .sigmas."):
        exporters.load("sigma")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("x.png", "no ending of a known format"),
        ("x", "no ending of a known format"),
        ("x.json", "fits the formats comfyui and sigmas"),
    ],
)
def test_a_file_name_chooses_its_format_or_says_why_not(file: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        exporters.for_file(file)
    assert exporters.for_file("x.YAML") == "yaml"
    assert exporters.for_file("x.py") == "diffusers"
    assert exporters.for_file("x.txt") == "sigmas"


def test_nothing_is_written_where_the_target_refuses(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    with pytest.raises(SystemExit):
        main(["export", "bottleneck-flux-3x", "-o", str(path)])
    assert not path.exists()
