"""Lists of noise levels: text as other tools take it, or the neutral JSON that ``tuner export`` writes."""

from __future__ import annotations

import re
from typing import Any

from tuner.importers.base import Reading, unreadable
from tuner.models._options import ModelOptions
from tuner.models._variance_preserving import VariancePreservingBlueprint
from tuner.models.base import Blueprint
from tuner.presets import ANY_MODEL


def read_list(file: str, text: str, model: Blueprint | None) -> Reading:
    """Reads numbers between commas or spaces, with or without brackets.

    Lists for pipelines of diffusers lack the last level, 0, which their schedulers append; it is appended here.
    For a model that predicts noise, the numbers are ratios k of noise to image: sigma = k / (1 + k).

    Raises:
        UserError: If something else than numbers is there, or if the numbers are ratios and the model is a flow.
    """
    words = re.split(r"[\s,;]+", text.strip().strip("[]()").strip())
    try:
        levels = [float(word) for word in words]
    except ValueError as error:
        raise unreadable(file, "it is no list of numbers between commas") from error
    if levels[-1] != 0:
        levels.append(0.0)
    if isinstance(model, VariancePreservingBlueprint):
        levels = [level / (1 + level) for level in levels]
    elif max(levels) > 1:
        raise unreadable(
            file, f"{max(levels):g} is above 1; if these are ratios of noise to image, name the model with --model"
        )
    return Reading("list of sigmas", [{"sigmas": levels}], model=model.name if model else ANY_MODEL)


def read_neutral(file: str, data: dict[str, Any]) -> Reading:
    """Reads what ``tuner export --format sigmas`` writes.

    Raises:
        UserError: If it is not that.
    """
    known = ("scale", "sigmas", "resample", "upscaler", "solver", "guidance", "guide")
    try:
        stages = [{key: stage[key] for key in known if key in stage} for stage in data["stages"]]
        options = ModelOptions(**{key: data[key] for key in ModelOptions.model_fields if key in data})
        return Reading(
            str(data["name"]), stages, data["solver"], data["model"], (data["height"], data["width"]), options
        )
    except (KeyError, TypeError, ValueError) as error:
        raise unreadable(file, f"it is not what `tuner export --format sigmas` writes ({error})") from error
