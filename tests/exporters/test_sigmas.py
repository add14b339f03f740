"""Lists of sigmas are what other tools read, and diffusers' scheduler shifts the inverted ones back."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from diffusers import FlowMatchEulerDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st

from tuner import exporters, models, presets
from tuner.exporters import ExportOptions, RefusedError
from tuner.models._diffusers import PipelineBlueprint
from tuner.presets import Preset
from tuner.schedule import Schedule, Stage

SIGMAS = exporters.load("sigmas")
MANUAL_SIGMAS = re.compile(r"[-+]?(?:\d*\.*\d+)")
"""How ComfyUI's ``ManualSigmas`` finds numbers (nodes_custom_sampler.py, read 2026-11-27)."""

decreasing = st.lists(st.floats(1e-8, 1, exclude_max=True), max_size=8, unique_by=lambda x: round(x, 8)).map(
    lambda levels: (1.0, *sorted((x for x in levels if x < 1 - 1e-7), reverse=True), 0.0)
)


def preset_of(levels: tuple[float, ...], model: str = "flux", **more: Any) -> Preset:
    schedule = Schedule(stages=(Stage(sigmas=levels),), **more)
    return Preset(name="x", model=model, source="x", height=1024, width=768, schedule=schedule)


@given(decreasing)
def test_manual_sigmas_reads_the_line_as_it_was_meant(levels: tuple[float, ...]) -> None:
    line = SIGMAS.export(preset_of(levels), models.blueprint("flux"), ExportOptions(text=True))
    assert line.endswith("\n")
    assert line.count("\n") == 1
    read = [float(number) for number in MANUAL_SIGMAS.findall(line)]
    assert read == pytest.approx(list(levels), rel=0, abs=1e-9)


@pytest.mark.parametrize("model", ["flux", "flux-schnell", "flux2", "sd3.5-medium", "z-image"])
@pytest.mark.parametrize("levels", [(1.0, 0.9, 0.5, 0.25, 0.0), (1.0, 0.3, 0.0), (1.0, 0.0)])
def test_the_models_own_scheduler_turns_the_list_into_the_wanted_one(
    model: str, levels: tuple[float, ...]
) -> None:
    known = models.blueprint(model)
    assert isinstance(known, PipelineBlueprint)
    options = ExportOptions(text=True, for_scheduler=True)
    line = SIGMAS.export(preset_of(levels, model), known, options)
    given = [float(number) for number in line.split(",")]
    scheduler = FlowMatchEulerDiscreteScheduler(**known.scheduler)
    scheduler.set_timesteps(sigmas=given, mu=known.mu(len(given), (1024, 768)))
    assert scheduler.sigmas.tolist() == pytest.approx(list(levels), rel=0, abs=1e-6)


def test_a_stretching_scheduler_takes_lists_that_end_where_it_ends() -> None:
    known = models.blueprint("qwen-image")
    assert isinstance(known, PipelineBlueprint)
    options = ExportOptions(for_scheduler=True)
    levels = (1.0, 0.7, 0.02, 0.0)
    written = json.loads(SIGMAS.export(preset_of(levels, "qwen-image"), known, options))
    scheduler = FlowMatchEulerDiscreteScheduler(**known.scheduler)
    scheduler.set_timesteps(sigmas=written["sigmas_for_scheduler"], mu=known.mu(3, (1024, 768)))
    assert scheduler.sigmas.tolist() == pytest.approx(list(levels), rel=0, abs=1e-6)
    with pytest.raises(RefusedError, match=r"stage 1 .*stretches every list to end at 0\.02"):
        SIGMAS.export(preset_of((1.0, 0.7, 0.1, 0.0), "qwen-image"), known, options)


@pytest.mark.parametrize(("model", "reason"), [("wan2.1-1.3b", "takes no sigmas"), ("chroma", "use_beta_sigmas")])
def test_schedulers_that_take_no_list_are_refused(model: str, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        SIGMAS.export(preset_of((1, 0.5, 0), model), models.blueprint(model), ExportOptions(for_scheduler=True))


def test_reused_steps_are_one_step_and_heuns_are_refused() -> None:
    schedule = Schedule(stages=(Stage(sigmas=(1, 0.8, 0.5, 0), reuse=(1,)),))
    preset = preset_of((1, 0.5, 0)).model_copy(update={"schedule": schedule})
    written = json.loads(SIGMAS.export(preset, None, ExportOptions()))
    assert written["sigmas"] == [1.0, 0.5, 0.0]
    assert written["steps"] == written["stages"][0]["steps"] == 2
    heun = schedule.model_copy(update={"solver": "heun"})
    with pytest.raises(RefusedError, match="Euler's rule alone"):
        SIGMAS.export(preset.model_copy(update={"schedule": heun}), None, ExportOptions())


def test_levels_of_noise_predicting_models_are_ratios_of_noise_to_image() -> None:
    text = ExportOptions(text=True)
    line = SIGMAS.export(presets.load("ays-sdxl-10"), models.blueprint("sdxl"), text)
    published = [14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0]
    assert [float(number) for number in line.split(",")] == pytest.approx(published, abs=5e-4)
    with pytest.raises(RefusedError, match="starts from noise alone"):
        SIGMAS.export(preset_of((1, 0.5, 0), "sdxl"), models.blueprint("sdxl"), text)


def test_neutral_json_says_what_a_reader_needs() -> None:
    written = json.loads(SIGMAS.export(presets.load("swd-flux-4"), None, ExportOptions()))
    assert written["guidance"] == 4.5
    assert written["lora"] == "yresearch/swd_flux"
    assert written["solver"] == "euler"
    assert "sigmas" not in written
    assert [stage["scale"] for stage in written["stages"]] == [0.5, 0.625, 0.75, 1.0]
    assert [stage.get("resample") for stage in written["stages"]] == [None, *["torch-bicubic"] * 3]


def test_a_line_holds_one_stage() -> None:
    with pytest.raises(RefusedError, match=r"stage 2 .*one list holds one stage"):
        SIGMAS.export(presets.load("swd-flux-4"), models.blueprint("flux"), ExportOptions(text=True))
