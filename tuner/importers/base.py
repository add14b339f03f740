"""What importers have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tuner.errors import UserError
from tuner.models._options import ModelOptions
from tuner.models.base import Size
from tuner.presets import ANY_MODEL
from tuner.schedule import Schedule


@dataclass
class Reading:
    """What a file says.

    Attributes:
        source: What it is, for the preset's source.
        stages: Fields of `Stage`, one dictionary each.
        solver: Name of the solver.
        model: Short name of the model, or ``any``.
        size: Output (height, width) in pixels, where the file says it.
        options: Guidance and LoRA.
    """

    source: str
    stages: list[dict[str, Any]]
    solver: str = "euler"
    model: str = ANY_MODEL
    size: Size | None = None
    options: ModelOptions = field(default_factory=ModelOptions)

    def schedule(self) -> Schedule:
        """Builds the schedule, which checks it."""
        return Schedule.model_validate({"stages": self.stages, "solver": self.solver})


def unreadable(file: str, reason: str) -> UserError:
    """Builds the error for a file that no preset expresses.

    Args:
        file: Its name.
        reason: Why, in a clause that may name a remedy.
    """
    return UserError(f"{file!r} does not become a preset: {reason.rstrip('.')}.")
