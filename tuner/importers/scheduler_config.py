"""``scheduler_config.json`` of diffusers: the grid that its scheduler makes of a number of steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tuner.importers.base import Reading, unreadable
from tuner.models._configuration import trusting
from tuner.models._variance_preserving import VariancePreservingBlueprint
from tuner.models.base import Blueprint, Size
from tuner.models.cogvideox import CogVideoXBlueprint

_OF_FLOWS = {"FlowMatchEulerDiscreteScheduler": "euler", "FlowMatchHeunDiscreteScheduler": "heun"}


def read_config(
    file: str, config: dict[str, Any], model: Blueprint | None, size: Size | None, steps: int | None
) -> Reading:
    """Computes the levels of a scheduler for a model, a size and a number of steps.

    Raises:
        UserError: If the model is not named, or if the scheduler steps by a rule that no solver here has.
    """
    if model is None:
        raise unreadable(file, "a scheduler's grid depends on the model; name it with --model")
    name = config["_class_name"]
    known = _OF_FLOWS
    if isinstance(model, VariancePreservingBlueprint):
        known = {"EulerDiscreteScheduler": "euler"}
    elif isinstance(model, CogVideoXBlueprint):
        known = {"CogVideoXDDIMScheduler": "euler"}
    if name not in known:
        raise unreadable(file, f"{name} is not read for {model.name}, but {' and '.join(known)}")
    steps, size = steps or model.steps, size or model.size
    with trusting(file, "scheduler"):
        levels = replace(model, scheduler=config).sigmas(steps, size)
    return Reading(f"{name} with {steps} steps", [{"sigmas": levels}], known[name], model.name, size)
