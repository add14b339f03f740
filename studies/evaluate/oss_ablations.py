"""Measures what each choice of Optimal Stepsize is worth: schedules found in other ways, on the same noise.

The choices are those of the paper's Tables 2 to 4 (arXiv 2503.21774, ImageNet-64), whose values stand beside ours.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from objectives.psnr import Psnr
from studies.evaluate.ablations import WHOLE, Row, Values
from studies.judge.intervals import paired_score
from tuner.distill.oss import search, search_each
from tuner.distill.steps import Settings
from tuner.flops import price
from tuner.models import FlowModel, Size
from tuner.sampling import sample
from tuner.schedule import MOST_STEPS, Schedule

if TYPE_CHECKING:
    from PIL.Image import Image

TEACHER = 10
"""Steps of the teacher for each step of a schedule, as the paper's teacher of 200 steps for its 20."""
REFERENCE = 50
"""Steps of the reference for each step of a schedule, as the paper's 1000 for its 20."""
MOST = MOST_STEPS // REFERENCE
"""Most steps of the schedules."""
PER_SAMPLE = "one schedule per sample"
CALIBRATED = "with calibration"
MULTISTEP = "dpmpp-2m"

_OSS_AVE = 26.47  # Table 3, 20 steps, teacher of 200
_PAPER: Mapping[str, Values] = {
    WHOLE: (_OSS_AVE, _OSS_AVE),
    "plain steps": (26.12, _OSS_AVE),  # Table 2, DDIM
    "latents compared": (18.54, 22.45),  # Table 4
    "teacher of 5x the steps": (26.41, _OSS_AVE),  # Table 3, from here on
    "teacher of 25x the steps": (26.47, _OSS_AVE),
    "median of levels": (_OSS_AVE, _OSS_AVE),
    "mean of levels": (_OSS_AVE, _OSS_AVE),
    PER_SAMPLE: (28.07, _OSS_AVE),
}
"""PSNR of a row, and of the whole method in the same table of the paper, dB."""

OnProgress: TypeAlias = "Callable[[str, int, int | None], None]"
"""Called with what is being made, its image forward passes so far and all of them, None if that is not known."""


@dataclass(frozen=True)
class OssAblations:
    """Schedules of one number of steps, found in different ways, and how near they come to many steps.

    Attributes:
        model: The model.
        search_prompts: Prompts to search on.
        prompts: Two or more others to measure on.
        steps: Of every schedule.
        size: Output (height, width) in pixels.
        batch: Most images in one network call.
        seed: Noise seed of the first prompt, of either kind.
        on_progress: Called after every network call of a search and every batch of images.
    """

    model: FlowModel
    search_prompts: Sequence[str]
    prompts: Sequence[str]
    steps: int
    size: Size
    batch: int
    seed: int
    on_progress: OnProgress

    def rows(self) -> list[Row]:
        """Searches, draws and measures.

        * plain steps.
        * latents compared, in the place of predicted clean images.
        * teachers of fewer and of more steps.
        * aggregation: the least mean log cost, the median or the mean of each step's level over the search
          prompts, and for each prompt the schedule that is best for it alone.
        * with calibration: the teacher's amplitudes.
        * a multistep solver, with plain steps and with those found for it.

        Returns:
            PSNR to the images of the reference, dB; the first row is the whole method.
        """
        found = self._schedules()
        reference = self._images("reference", self.model.blueprint.plain(REFERENCE * self.steps, self.size))
        near = {name: _psnr(self._images(name, one), reference) for name, one in found.items()}
        near[PER_SAMPLE] = _psnr(self._images_of_each(), reference)
        cost = {name: price(one, self.model.blueprint, self.size).tflops for name, one in found.items()}
        cost[PER_SAMPLE] = cost[WHOLE]
        return [
            Row(name, cost[name], {"psnr": paired_score(values, near[WHOLE])}, _in_the_paper(name))
            for name, values in near.items()
        ]

    def _schedules(self) -> dict[str, Schedule]:
        calibrated = self._found(CALIBRATED, calibrate=True)
        plain = self.model.blueprint.plain(self.steps, self.size)
        stage = calibrated.stages[0].model_copy(update={"amplitudes": ()})
        return {
            WHOLE: Schedule(stages=(stage,)),
            "plain steps": Schedule(stages=plain.stages),
            "latents compared": self._found("latents compared", distance="x_t"),
            "teacher of 5x the steps": self._found("teacher of 5x", teacher_steps=5 * self.steps),
            "teacher of 25x the steps": self._found("teacher of 25x", teacher_steps=25 * self.steps),
            "least mean log cost": self._found("least mean log cost", aggregate="mean-log"),
            "median of levels": self._found("median of levels", aggregate="median"),
            "mean of levels": self._found("mean of levels", aggregate="mean"),
            CALIBRATED: calibrated,
            f"plain {MULTISTEP}": Schedule(stages=plain.stages, solver=MULTISTEP),
            f"found for {MULTISTEP}": self._found(f"found for {MULTISTEP}", solver=MULTISTEP),
        }

    def _found(self, name: str, **changes: Any) -> Schedule:
        on_progress = functools.partial(self.on_progress, name)
        settings = replace(self._settings, **changes)
        seeds = range(self.seed, self.seed + len(self.search_prompts))
        result = search(self.model, self.search_prompts, seeds, [self.steps], self.size, settings, on_progress)
        return result.schedules[self.steps]

    @property
    def _settings(self) -> Settings:
        return Settings(teacher_steps=TEACHER * self.steps, batch=self.batch)

    def _batches(self) -> Iterator[tuple[Sequence[str], range]]:
        """Parts the prompts to measure on, each part with its noise seeds."""
        for start in range(0, len(self.prompts), self.batch):
            prompts = self.prompts[start : start + self.batch]
            yield prompts, range(self.seed + start, self.seed + start + len(prompts))

    def _images(self, name: str, schedule: Schedule) -> list[Image]:
        images: list[Any] = []
        for prompts, seeds in self._batches():
            latents = sample(self.model, schedule, self.model.encode(prompts), seeds, self.size)
            images.extend(self.model.decode(latents))
            self.on_progress(f"images: {name}", len(images), len(self.prompts))
        return images

    def _images_of_each(self) -> list[Image]:
        """Draws every prompt with the schedule that is best for it and its noise."""
        images: list[Any] = []
        for prompts, seeds in self._batches():
            on_progress = functools.partial(self.on_progress, PER_SAMPLE)
            schedules = search_each(self.model, prompts, seeds, self.steps, self.size, self._settings, on_progress)
            for prompt, seed, schedule in zip(prompts, seeds, schedules, strict=True):
                latents = sample(self.model, schedule, self.model.encode([prompt]), [seed], self.size)
                images.extend(self.model.decode(latents))
        return images


def _psnr(images: Sequence[Image], reference: Sequence[Image]) -> list[float]:
    measure = Psnr()
    return [measure.of_pair(image, of) for image, of in zip(images, reference, strict=True)]


def _in_the_paper(name: str) -> dict[str, Values]:
    if name not in _PAPER:
        return {}
    value, whole = _PAPER[name]
    return {"psnr": (value, round(value - whole, 2))}
