"""One unit of work, a schedule on a chunk of prompts, and what does it: a model and objectives, loaded once."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from studies.caches import LIMIT, TensorCache, prefix_key
from tuner.invariance import batch_invariant, decode_each
from tuner.models import Conditioning, FlowModel, Size
from tuner.sampling import run_stage
from tuner.schedule import Schedule

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from objectives import Objective


@dataclass(frozen=True)
class Task:
    """A schedule to run on a chunk of prompts.

    Attributes:
        schedule: What to run.
        prompts: The chunk, drawn as one batch.
        seeds: Noise seed of each prompt.
        size: Output (height, width) in pixels.
        keep_images: Whether the images come back with the scores.
    """

    schedule: Schedule
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    size: Size
    keep_images: bool = False

    @property
    def key(self) -> tuple[str, tuple[str, ...], tuple[int, ...], Size]:
        """Equal for two tasks exactly when they give the same scores."""
        return self.schedule.content_hash, self.prompts, self.seeds, self.size


@dataclass(frozen=True)
class ChunkResult:
    """What a finished task found.

    Attributes:
        scores: For each objective, one score per prompt of the chunk.
        seconds: Time spent in ``sampling``, ``decoding`` and ``scoring``.
        images: PNG files, one per prompt, if the task asked for them.
        kept_stages: Leading stages that were not run, as their result was kept from another schedule.
    """

    scores: Mapping[str, Sequence[float]]
    seconds: Mapping[str, float] = field(default_factory=dict)
    images: tuple[bytes, ...] = ()
    kept_stages: int = 0


@dataclass(frozen=True)
class Failure:
    """Why a task has no result. It is the schedule's failure, not the study's."""

    reason: str


class Evaluator:
    """Draws and scores; plain Python that knows nothing of workers.

    Args:
        model: The model to sample from.
        objectives: What scores the images; their names differ.
        cache_bytes: Memory for text encodings and for the latents between stages, which schedules that begin
            with the same stages share.
    """

    def __init__(self, model: FlowModel, objectives: Sequence[Objective], cache_bytes: int = LIMIT):
        self._model = model
        self._objectives = list(objectives)
        self._cache = TensorCache(cache_bytes)

    @classmethod
    def load(cls, model: str, objectives: Sequence[str], device: str | None = None) -> Evaluator:
        """Loads the weights of a model and of objectives.

        Args:
            model: Short name, folder or hub id.
            objectives: ``name:weights`` of each.
            device: Torch device; None for the first GPU that this process may use, else the CPU.

        Raises:
            UserError: If any weights cannot be loaded.
        """
        import torch

        from objectives import load
        from tuner.models import blueprint

        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return cls(blueprint(model).load(device), [load(spec, device) for spec in objectives])

    def evaluate(self, task: Task) -> ChunkResult | Failure:
        """Runs a task. Equal tasks give equal scores, on a CPU bit by bit."""
        start = time.perf_counter()
        with batch_invariant():
            latents, kept_stages = self._sample(task)
            if not bool(latents.isfinite().all()):
                return Failure("the latents are not finite (NaN or infinity).")
            sampled = time.perf_counter()
            images = decode_each(self._model, latents)
        decoded = time.perf_counter()
        for image, prompt in zip(images, task.prompts, strict=True):
            if _is_blank(image):
                return Failure(f"the image for {prompt!r} is all one colour.")
        scores = {objective.name: objective.score(images, task.prompts) for objective in self._objectives}
        for name, of_prompts in scores.items():
            if not all(math.isfinite(score) for score in of_prompts):
                return Failure(f"objective {name!r} gave a score that is not finite: {of_prompts}.")
        seconds = {
            "sampling": sampled - start,
            "decoding": decoded - sampled,
            "scoring": time.perf_counter() - decoded,
        }
        pictures = tuple(_png(image) for image in images) if task.keep_images else ()
        return ChunkResult(scores, seconds, pictures, kept_stages)

    def _sample(self, task: Task) -> tuple[torch.Tensor, int]:
        """Runs the stages after the longest beginning that is kept; returns the latents and its length."""
        count = len(task.schedule.stages)
        first, x = 0, None
        for stages in range(count - 1, 0, -1):
            if (x := self._cache.get(prefix_key(task, stages))) is not None:
                first = stages
                break
        conditioning = self._encode(task.prompts)
        for index in range(first, count):
            x = run_stage(self._model, task.schedule, index, x, conditioning, task.seeds, task.size)
            if index + 1 < count:
                self._cache.keep(prefix_key(task, index + 1), x)
        assert x is not None  # a schedule has at least one stage
        return x, first

    def _encode(self, prompts: tuple[str, ...]) -> Conditioning:
        kept: Conditioning | None = self._cache.get(prompts)
        return kept if kept is not None else self._cache.keep(prompts, self._model.encode(prompts))


def _is_blank(image: Image) -> bool:
    return image.convert("RGB").getcolors(maxcolors=1) is not None


def _png(image: Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
