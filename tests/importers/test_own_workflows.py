"""What `tuner` exports to ComfyUI comes back as a schedule that costs and samples the same."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

import search_spaces
from studies.propose.random_trial import Draw
from tests.exporters.own_grid import euler_blueprint
from tests.exporters.test_comfyui import COMFYUI, MIXED, PROMPT, SEED, STAGED, guided, preset_of, solved, stub
from tests.search_spaces.anchored import loadable
from tuner import importers, models, presets, solvers
from tuner.budget import parse_budget
from tuner.errors import UserError
from tuner.exporters import ExportOptions
from tuner.exporters._comfyui_families import FAMILIES
from tuner.flops import price
from tuner.latency import LatencyTable
from tuner.models import Blueprint
from tuner.models.base import Size
from tuner.presets import Preset
from tuner.sampling import sample
from tuner.schedule import Schedule, Stage

WITHOUT_NOISE = [name for name in solvers.available() if not solvers.draws_noise(name)]


SHIPPED = ("swd-flux", "swd-sd3", "swd-tiny", "ralu", "oss-flux")
"""Presets that are carried, as tests/exporters/test_comfyui.py proves."""
CALLED = Schedule(
    stages=(MIXED.stages[0].model_copy(update={"reuse": ()}), *MIXED.stages[1:]), solver=MIXED.solver
)
"""Three rules, one of which remembers, that call the network in every step."""


def carried() -> list[str]:
    """Names the models whose guidance and nodes ComfyUI has."""
    known = {name: models.blueprint(name) for name in models.available()}
    classes = {name: getattr(one, "exported_as", "") or one.pipeline_class for name, one in known.items()}
    return [name for name, kind in classes.items() if kind in FAMILIES and FAMILIES[kind].guidance != "rescaled"]


def back(folder: Path, preset: Preset, known: Blueprint, named: Blueprint | None = None) -> Preset:
    path = folder / "x.json"
    path.write_text(COMFYUI.export(preset, known, ExportOptions()), encoding="utf-8")
    return importers.read(path, named)


def optioned(preset: Preset, known: Blueprint) -> Blueprint:
    return known.with_options(preset.model_options) if preset.model_options else known


def calls(schedule: Schedule, known: Any, size: Size) -> tuple[list[Any], list[float]]:
    """Lists size, passes and guidance scale of every network call, which are what it costs; and their levels."""
    found, levels = [], []
    for stage in schedule.resolved:
        assert stage.solver is not None
        for level in solvers.call_sigmas(stage.solver, stage.sigmas, stage.reuse):
            called = known.called(stage, level)
            scale = called.scale(level) if called.passes > 1 else None
            told = scale if called.true_guidance else called.guidance
            found.append((known.stage_size(size, stage.scale), called.passes, told))
            levels.append(level)
    return found, levels


def latents(schedule: Schedule) -> torch.Tensor:
    """Samples a schedule, without its guidance, on a network that costs nothing."""
    model = stub()
    plain = [stage.model_copy(update={"guidance": None, "guide": None}) for stage in schedule.resolved]
    bare = Schedule(stages=tuple(plain), solver=schedule.solver)
    side = 16 * model.blueprint.multiple
    return sample(model, bare, model.encode([PROMPT]), [SEED], (side, side))


def assert_same(made: Preset, preset: Preset, known: Blueprint) -> None:
    size = preset.height, preset.width
    assert (made.height, made.width) == size
    (asked, levels), (expected_asked, expected_levels) = (
        calls(one.schedule, optioned(one, known), size) for one in (made, preset)
    )
    assert asked == expected_asked
    assert levels == pytest.approx(expected_levels, abs=1e-9)
    expected = latents(preset.schedule)
    tolerance = 1e-5 * max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(latents(made.schedule), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", [name for name in presets.available() if name.startswith(SHIPPED)])
def test_a_shipped_preset_comes_back(name: str, tmp_path: Path) -> None:
    preset = presets.load(name)
    known = models.blueprint(preset.model)
    made = back(tmp_path, preset, optioned(preset, known))
    assert made.model == preset.model
    assert_same(made, preset, known)


@pytest.mark.parametrize("name", carried())
def test_every_model_comes_back_with_its_guidance_and_networks(name: str, tmp_path: Path) -> None:
    known: Any = euler_blueprint(models.blueprint(name))
    schedules = [STAGED, CALLED, guided(known)] if known.guidance else [STAGED, CALLED]
    for schedule in schedules:
        preset = preset_of(schedule, known.size)
        if refusal := COMFYUI.refusal(preset, known, ExportOptions()):
            assert re.search("resizes patches|change of its two networks", refusal)
            continue
        assert_same(back(tmp_path, preset, known, known), preset, known)


@pytest.mark.parametrize("solver", WITHOUT_NOISE)
def test_every_rule_without_noise_comes_back(solver: str, tmp_path: Path) -> None:
    known = models.blueprint("flux")
    preset = preset_of(solved(solver), (1024, 1024))
    made = back(tmp_path, preset, known)
    assert made.schedule.solver == solver
    assert [stage.steps for stage in made.schedule.stages] == [4, 18]
    assert_same(made, preset, known)


def unmeasured() -> LatencyTable:
    raise AssertionError("a budget in FLOPs asks for no latency")


def test_a_rule_that_remembers_steps_of_a_reused_velocity_names_the_node(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'SamplerCustomAdvanced' \(number \d+\) and the latents that are added"):
        back(tmp_path, preset_of(MIXED, (1024, 1024)), models.blueprint("flux"))


@pytest.mark.parametrize("name", loadable())
def test_random_schedules_come_back_or_name_a_node(name: str, tmp_path: Path) -> None:
    """Any rule, and any guidance, in every stage; a rule that remembers may have steps that reuse a velocity."""
    known, size = models.blueprint("sd3.5-medium"), (256, 256)
    tiny, small = models.blueprint("tiny"), (64, 64)  # its network is quickly priced
    budget = parse_budget("3x", price(tiny.baseline(), tiny), tiny, small, unmeasured)
    space = search_spaces.load(name, tiny, small, budget, lambda schedule: schedule.cache is None)
    rng, came_back = Random(0), 0
    for _ in range(60):
        stages = [
            stage.model_copy(
                update={
                    "solver": rng.choice(WITHOUT_NOISE),
                    "guidance": rng.choice((None, 1.0, 3.0)),
                    "resample": rng.choice(("nearest", "area", "torch-bicubic")),
                    "reuse": stage.reuse if rng.random() < 0.2 else (),
                }
            )
            for stage in space.suggest(Draw(rng)).stages
        ]
        preset = preset_of(Schedule(stages=tuple(Stage(**stage.model_dump()) for stage in stages)), size)
        if COMFYUI.refusal(preset, known, ExportOptions()):
            continue
        if any(stage.reuse and solvers.remembers(str(stage.solver)) for stage in stages):
            with contextlib.suppress(UserError):
                assert_same(back(tmp_path, preset, known, known), preset, known)
            continue
        assert_same(back(tmp_path, preset, known, known), preset, known)
        came_back += 1
    assert came_back > 30
