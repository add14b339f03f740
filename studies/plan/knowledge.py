"""What an earlier study found out: schedules, their relative costs, and their differences to its baseline.

It holds no prompts and no images, so that people can hand it on.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from objectives.base import Direction
from tuner.errors import UserError
from tuner.presets import first_problem
from tuner.schedule import Schedule, Stage
from tuner.text_files import MEBIBYTE, read_text

if TYPE_CHECKING:
    from search_spaces import SearchSpace
    from tuner.models import Blueprint, Size

_MOST_BYTES = 64 * MEBIBYTE
_MOST_RESULTS = 5000


class Difference(BaseModel):
    """A mean paired difference to the baseline on one objective, and its standard error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    delta: float
    error: float = Field(ge=0)


class Finding(BaseModel):
    """What a study found out about a schedule.

    Attributes:
        schedule: The schedule.
        cost: Its TFLOPs over the baseline's.
        passes: Its network passes over the baseline's.
        prompts: How many prompts it was scored on.
        differences: Its differences to the baseline, in the order of the objectives.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schedule: Schedule
    cost: float = Field(gt=0)
    passes: float = Field(gt=0)
    prompts: int = Field(ge=1)
    differences: tuple[Difference, ...]


class KnownObjective(BaseModel):
    """An objective: plain name, name with weights, and the way it improves."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    spec: str
    direction: Direction


class Knowledge(BaseModel):
    """What a study found out.

    Attributes:
        study: Name of the study.
        model: The model that it searched.
        size: Output (height, width) in pixels.
        frames: Frames of a video, where the search asked for a number.
        calls: Network calls of the baseline.
        objectives: Its objectives.
        results: What it found out, in the order of its trials.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: str = Field(min_length=1)
    model: str
    size: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]]
    frames: int | None = Field(default=None, ge=1)
    calls: int = Field(ge=1)
    objectives: tuple[KnownObjective, ...] = Field(min_length=1)
    results: tuple[Finding, ...] = Field(min_length=1, max_length=_MOST_RESULTS)

    @functools.cached_property
    def digest(self) -> str:
        """A hash of all that it says, sixteen hex digits."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    def __hash__(self) -> int:
        return hash(self.digest)

    def column(self, name: str) -> int:
        """Returns the place of an objective among the differences.

        Raises:
            ValueError: If there is no such objective.
        """
        return [objective.name for objective in self.objectives].index(name)


def read_knowledge(path: Path) -> Knowledge:
    """Reads a file that ``tuner export --format knowledge`` wrote.

    Raises:
        UserError: If it cannot be read, or if it breaks a rule.
    """
    remedy = "write it again with `tuner export STUDY --format knowledge`"
    text = read_text(path, "Knowledge", _MOST_BYTES, remedy)
    try:
        found = Knowledge.model_validate_json(text)
    except (ValidationError, RecursionError) as error:
        problem = first_problem(error) if isinstance(error, ValidationError) else "it is nested too deeply"
        raise UserError(f"Knowledge file {str(path)!r} is not valid ({problem[:300]}); {remedy}.") from error
    if any(len(result.differences) != len(found.objectives) for result in found.results):
        raise UserError(f"Knowledge file {str(path)!r} has results without all of its objectives; {remedy}.")
    return found


def within_space(
    studies: Sequence[Knowledge], space: SearchSpace, model: Blueprint, size: Size
) -> list[tuple[Schedule, Schedule, Mapping[str, Any]]]:
    """Lists the schedules of earlier studies that a space has: as they were, as the space makes them, parameters.

    Scales become the nearest ones that differ at this size, and a guidance scale that the model does not take is
    left out. What the space or the budget still excludes is left out.

    Args:
        studies: The earlier studies.
        space: The space of this study.
        model: Its model.
        size: Its output (height, width) in pixels.
    """
    from optuna.trial import FixedTrial

    from search_spaces._costs import distinct_scales

    scales = distinct_scales(model, size)
    found: dict[str, tuple[Schedule, Schedule, Mapping[str, Any]]] = {}
    for original in (result.schedule for study in studies for result in study.results):
        with contextlib.suppress(ValueError):
            params = space.params_of(_adapted(original, scales, model))
            schedule = space.suggest(FixedTrial(params))
            found.setdefault(schedule.content_hash, (original, schedule, params))
    return list(found.values())


def _adapted(schedule: Schedule, scales: Sequence[float], model: Blueprint) -> Schedule:
    stages, last = list[Stage](), 0.0
    for stage in schedule.stages:
        changed: dict[str, Any] = {"scale": min(scales, key=lambda scale: abs(scale - stage.scale))}
        if changed["scale"] == last:
            changed["resample"] = "bilinear"
        if model.guidance is None:
            changed |= {"guidance": None, "guide": None}
        stages.append(stage.model_copy(update=changed))
        last = changed["scale"]
    return schedule.model_copy(update={"stages": tuple(stages)})
