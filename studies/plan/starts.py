"""The schedules that a user wants a search to start from: presets, or files of other tools."""

from __future__ import annotations

from pathlib import Path

from studies.plan.target import Target
from tuner import importers, presets
from tuner.errors import UserError
from tuner.models import Blueprint, ModelOptions, Size
from tuner.presets import Preset
from tuner.schedule import Schedule


def start(name: str, model: Blueprint, size: Size, target: Target | None) -> Preset:
    """Reads what a search starts from, as this model runs it.

    A guidance scale of its own, which the study's other schedules do not have, becomes that of its stages.

    Args:
        name: A shipped preset, a preset file, or another file that ``tuner import`` reads.
        model: The study's model.
        size: The study's output (height, width) in pixels.
        target: What has to carry it; None for no limit.

    Raises:
        UserError: If it cannot be read, needs other options than the study's model has, or is not carried.
    """
    preset = _read(name, model, size)
    options = preset.model_options or ModelOptions()
    if options.model_copy(update={"guidance": None}) != ModelOptions():
        raise UserError(
            f"Preset {name!r} has model options of its own, and a search runs all schedules with the same; start "
            "from one without LoRA and negative prompt in `model_options`."
        )
    if options.guidance not in (None, model.guidance):
        schedule = _guided(preset.schedule, options.guidance)
        for stage in schedule.stages:
            model.called(stage, stage.sigmas[0])
        preset = preset.model_copy(update={"schedule": schedule, "model_options": None})
    if target and (reason := target.refusal(preset.schedule)):
        raise UserError(f"A search for {target.name} cannot start from {name!r}: {reason}")
    return preset


def _read(name: str, model: Blueprint, size: Size) -> Preset:
    path = Path(name)
    if name not in presets.available() and path.is_file() and path.suffix.lower() not in (".yaml", ".yml"):
        return importers.read(path, model, size)
    return presets.load(name)


def _guided(schedule: Schedule, guidance: float | None) -> Schedule:
    """Gives a guidance scale to the stages that have none of their own."""
    own = ({} if stage.guidance is not None else {"guidance": guidance} for stage in schedule.stages)
    stages = tuple(stage.model_copy(update=more) for stage, more in zip(schedule.stages, own, strict=True))
    return schedule.model_copy(update={"stages": stages})
