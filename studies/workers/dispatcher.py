"""Sends tasks to workers and writes their outcomes to disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from studies.work.objective_warnings import Notes
from studies.work.task import Failure, Task

if TYPE_CHECKING:
    from objectives.base import Direction
    from studies.records.folder import Folder
    from studies.records.score_log import ScoreBook, ScoreLog
    from studies.work.task import ChunkResult, Redrawn
    from studies.workers.executors import Executor
    from tuner.flops import Price
    from tuner.schedule import Schedule


class Work(Protocol):
    """The part of a plan that the dispatcher needs; searches and evaluations have one."""

    @property
    def directions(self) -> Mapping[str, Direction]:
        """Direction in which each objective improves, by its plain name."""

    @property
    def baseline_price(self) -> Price:
        """The price of what fidelity objectives compare with."""

    def price(self, schedule: Schedule) -> Price:
        """Prices a schedule."""

    def image_number(self, task: Task) -> int:
        """Returns the number, from 0, of a task's first image among the kept ones."""


class Evaluations:
    """Runs tasks that have no outcome yet, keeps their outcomes, and counts their cost.

    Args:
        plan: The search, or the evaluation of presets.
        folder: Where images are kept.
        scores: Where scores are kept.
        earlier: Scores of other studies.
        start_workers: Makes the executor; called before the first task runs.
        price: Prices an image of a task; by default its schedule on the plan's model.
    """

    def __init__(
        self,
        plan: Work,
        folder: Folder,
        scores: ScoreLog,
        earlier: ScoreBook,
        start_workers: Callable[[], Executor],
        price: Callable[[Task], Price] | None = None,
    ):
        self._plan = plan
        self._folder = folder
        self._scores = scores
        self._earlier = earlier
        self._start_workers = start_workers
        self._price = price or (lambda task: plan.price(task.schedule))
        self._executor: Executor | None = None
        self._running: set[Any] = set()
        self._notes = Notes()
        self._earlier_s = scores.elapsed_s
        self._started = time.monotonic()
        self._first_result: tuple[float, float] | None = None  # its time and the TFLOPs until then

    @property
    def tflops_spent(self) -> float:
        """Denoiser TFLOPs of the study so far, earlier sittings included."""
        return self._scores.tflops

    @property
    def tflops_reused(self) -> Mapping[str, float]:
        """Denoiser TFLOPs that reuse saved; see `ScoreLog.reused`."""
        return self._scores.reused

    @property
    def elapsed_s(self) -> float:
        """Seconds spent on the study so far, earlier sittings included."""
        return self._earlier_s + time.monotonic() - self._started

    @property
    def tflops_per_second(self) -> float | None:
        """Throughput of all workers since the first result of this sitting, which leaves out loading the model.

        None before there are two results.
        """
        if self._first_result is None:
            return None
        then, before = self._first_result
        return (self._scores.tflops - before) / max(time.monotonic() - then, 1e-6) or None

    @property
    def working(self) -> bool:
        """Whether any task is pending."""
        return bool(self._running)

    def has(self, task: Task) -> bool:
        """Whether a task is finished."""
        return self._scores.get(task) is not None

    def request(self, tasks: Sequence[Task]) -> None:
        """Sends tasks to the workers, except those that are pending or that a study has already run."""
        for task in tasks:
            if task.key in self._running or self.has(task):
                continue
            known = self._earlier.get(task)
            if known is None:
                self._send(task)
            else:
                tflops = self._price(task).tflops * len(task.prompts)
                self._scores.put(task, known, 0.0, self.elapsed_s, {"scores": tflops})

    def draw_again(self, tasks: Sequence[Task]) -> None:
        """Sends tasks to the workers even if their scores are known, to draw images for reused scores."""
        for task in tasks:
            self._send(task)

    def _send(self, task: Task) -> None:
        if self._executor is None:
            self._executor = self._start_workers()
        self._executor.submit(task)
        self._running.add(task.key)

    def wait(self) -> None:
        """Waits for the next outcome and writes it to disk."""
        if self._executor is None:
            raise RuntimeError("there is nothing to wait for.")
        task, outcome = self._executor.next()
        if not isinstance(outcome, Failure):
            self._notes.show(outcome.notes)
            if outcome.images:
                first = self._plan.image_number(task)
                self._folder.write_images(task.drawing, first, outcome.images)
        spent, kept = self._tflops(task, outcome)
        self._scores.put(task, outcome, spent, self.elapsed_s, {"prefixes": kept} if kept else {})
        self._running.discard(task.key)
        if self._first_result is None:
            self._first_result = time.monotonic(), self._scores.tflops

    def _tflops(self, task: Task, outcome: ChunkResult | Failure) -> tuple[float, float]:
        """Returns the TFLOPs that a task spent, with images of the baseline, and those that caches saved."""
        price, images = self._price(task), len(task.prompts)
        if isinstance(outcome, Failure):
            return price.tflops * images, 0.0
        drawn = [(price, images, _kept_tflops(price, outcome))]
        for redrawn in outcome.redrawn:
            baseline = self._plan.baseline_price
            drawn.append((baseline, redrawn.images, _kept_tflops(baseline, redrawn)))
        spent = sum((price.tflops - kept) * images for price, images, kept in drawn)
        return spent, sum(kept * images for _, images, kept in drawn)

    def outcome(self, tasks: Sequence[Task]) -> dict[str, list[float]] | Failure | None:
        """Returns the scores by objective, in the order of the prompts, or the first failure.

        None while any task is pending. A failure is returned as soon as one task has failed.
        """
        results = [self._scores.get(task) for task in tasks]
        scores: dict[str, list[float]] = {name: [] for name in self._plan.directions}
        missing = False
        for result in results:
            if isinstance(result, Failure):
                return result
            if result is None:
                missing = True
                continue
            for name, values in result.scores.items():
                scores[name] += values
        return None if missing else scores

    def close(self) -> None:
        """Stops the workers, if any were started."""
        if self._executor is not None:
            self._executor.close()
            self._executor = None


def _kept_tflops(price: Price, result: ChunkResult | Redrawn) -> float:
    """TFLOPs per image that cache hits saved."""
    stages = sum(stage.tflops for stage in price.stages[: result.kept_stages])
    opened = [price.stages[index] for index in result.kept_calls]  # without a feature cache, see `openings`
    return stages + sum(stage.tflops / stage.calls for stage in opened)
