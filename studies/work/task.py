"""A unit of work, a schedule on a chunk of prompts, and its outcome: scores or a failure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from studies.work.own_options import OwnOptions, drawing_key
from tuner.models import Size
from tuner.schedule import Schedule


@dataclass(frozen=True)
class Task:
    """A schedule to run on a chunk of prompts.

    Attributes:
        schedule: What to run.
        prompts: The chunk, drawn as one batch.
        seeds: Noise seed of each prompt.
        size: Output (height, width) in pixels.
        keep_images: Whether the images come back with the scores.
        own: Model options that the schedule was made for; None for those that the model was loaded with.
    """

    schedule: Schedule
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    size: Size
    keep_images: bool = False
    own: OwnOptions | None = None

    @property
    def drawing(self) -> str:
        """Names what draws the images; see `drawing_key`."""
        return drawing_key(self.schedule, self.own)

    @property
    def key(self) -> tuple[str, tuple[str, ...], tuple[int, ...], Size]:
        """Equal for two tasks exactly when they give the same scores."""
        return self.drawing, self.prompts, self.seeds, self.size


@dataclass(frozen=True)
class ChunkResult:
    """What a finished task found.

    Attributes:
        scores: For each objective, one score per prompt of the chunk.
        seconds: Time spent in ``sampling``, ``decoding`` and ``scoring``, and in ``references`` where an objective
            compares with the baseline's images.
        images: PNG files, one per prompt, if the task asked for them.
        notes: What objectives have to say to the user, by their names.
        kept_stages: Leading stages that were not run, as their result was kept from another schedule.
        kept_calls: Numbers of the stages that ran without their first network call, as its velocity was kept.
    """

    scores: Mapping[str, Sequence[float]]
    seconds: Mapping[str, float] = field(default_factory=dict)
    images: tuple[bytes, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    kept_stages: int = 0
    kept_calls: tuple[int, ...] = ()


@dataclass(frozen=True)
class Failure:
    """Why a task has no result. A failure ends the schedule, not the study.

    Attributes:
        reason: For people.
        transient: Whether the environment failed (memory, a device, a worker, an unexpected exception). A resumed
            study tries the task again. Otherwise the schedule itself failed, and the failure is final.
        degenerate: How many images of the chunk had which fault; see `studies.work.broken_images`.
    """

    reason: str
    transient: bool = False
    degenerate: Mapping[str, int] = field(default_factory=dict, hash=False)
