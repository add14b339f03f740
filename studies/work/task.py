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
        """Key of the images; see `drawing_key`."""
        return drawing_key(self.schedule, self.own)

    @property
    def key(self) -> tuple[str, tuple[str, ...], tuple[int, ...], Size]:
        """Equal for two tasks exactly when they give the same scores."""
        return self.drawing, self.prompts, self.seeds, self.size


@dataclass(frozen=True)
class Redrawn:
    """Images of the baseline that were drawn to compare with, because none were kept.

    Attributes:
        images: How many.
        kept_stages: See `ChunkResult`.
        kept_calls: See `ChunkResult`.
    """

    images: int
    kept_stages: int = 0
    kept_calls: tuple[int, ...] = ()


@dataclass(frozen=True)
class ChunkResult:
    """The result of a finished task.

    Attributes:
        scores: For each objective, one score per prompt of the chunk.
        seconds: Time spent in ``sampling``, ``decoding`` and ``scoring``, and in ``references`` where an objective
            compares with the baseline's images.
        images: One PNG file per prompt if the task asked for images.
        notes: Warnings of objectives to the user, by name.
        kept_stages: Leading stages that a cache hit replaced.
        kept_calls: Indices of the stages whose first network call a cache hit replaced.
        runtime: Device type and precision that it was computed with; see `FlowModel.runtime`.
        redrawn: What of the baseline the worker drew beside its tasks since it last returned a result.
    """

    scores: Mapping[str, Sequence[float]]
    seconds: Mapping[str, float] = field(default_factory=dict)
    images: tuple[bytes, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    kept_stages: int = 0
    kept_calls: tuple[int, ...] = ()
    runtime: str = ""
    redrawn: tuple[Redrawn, ...] = ()


@dataclass(frozen=True)
class Failure:
    """Why a task has no result. A failure ends the schedule, not the study.

    Attributes:
        reason: Shown to users.
        transient: Whether the environment failed (memory, a device, a worker, an unexpected exception). A resumed
            study tries the task again. Otherwise the schedule itself failed, and the failure is final.
        degenerate: How many images of the chunk had which fault; see `studies.work.broken_images`.
    """

    reason: str
    transient: bool = False
    degenerate: Mapping[str, int] = field(default_factory=dict, hash=False)
