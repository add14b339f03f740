"""The largest cost of a search, estimated before it starts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from studies.plan.plan import Plan, make_plan
from studies.work.evaluator import Evaluator
from studies.work.task import Failure, Task
from studies.workers.executors import device_of
from studies.workers.latency import latencies
from tuner.invariance import one_thread

if TYPE_CHECKING:
    from studies.plan.settings import SearchSettings
    from studies.workers.executors import Load

_CALIBRATION_STEPS = 2
_SECONDS_PER_HOUR = 3600


class Estimate(BaseModel):
    """The largest cost of a search; rungs, cached stages and scores of other studies lower it.

    Attributes:
        study: Name of the study.
        trials: Number of trials.
        baseline: Denoiser TFLOPs of the baseline on the search prompts.
        references: Denoiser TFLOPs of all references.
        proposals: Denoiser TFLOPs of all proposals if each spends the whole budget on every search prompt; less if
            ``--max-tflops`` allows less.
        held_out: Denoiser TFLOPs of the check on unseen prompts: the baseline, the pick and its rivals.
        total: Denoiser TFLOPs of all these.
        images: Images that are decoded and scored.
        workers: Processes that share the work.
        seconds_per_tflop: Seconds of one worker per TFLOP, measured on this device.
        seconds_per_image: Seconds of one worker to decode and score an image, measured on this device.
        hours: Hours on all workers, without the time to load the model.
    """

    model_config = ConfigDict(frozen=True)

    study: str
    trials: int
    baseline: float
    references: float
    proposals: float
    held_out: float
    total: float
    images: int
    workers: int
    seconds_per_tflop: float
    seconds_per_image: float
    hours: float


def estimate(settings: SearchSettings, load: Load | None = None) -> Estimate:
    """Prices a search and times one chunk of prompts on this device. It starts no study and writes nothing.

    Args:
        settings: The settings of the search.
        load: Loads the evaluator; by default that of the settings' model and objectives.

    Raises:
        UserError: If a setting is wrong, or if weights cannot be loaded.
        RuntimeError: If the model fails on the first prompts.
    """
    plan = make_plan(settings, latencies)
    search, held_out = len(plan.prompts.search), len(plan.prompts.held_out)
    further = len(plan.prompts.further)
    references = sum(plan.price(reference.schedule).tflops for reference in plan.references) * search
    proposals = settings.trials * plan.budget.tflops * search
    if settings.max_tflops is not None:
        proposals = min(proposals, settings.max_tflops - plan.least_tflops)
    baseline = plan.baseline_price.tflops * search
    total = plan.least_tflops + proposals
    images = (1 + len(plan.references) + settings.trials) * search + 4 * held_out + 3 * further
    device = device_of(settings.gpus_per_worker)
    evaluator = load() if load else Evaluator.load(settings.model, plan.objectives, device, settings.options)
    per_tflop, per_image = _time(evaluator, plan)
    workers = _workers(settings)
    return Estimate(
        study=settings.name,
        trials=settings.trials,
        baseline=baseline,
        references=references,
        proposals=proposals,
        held_out=total - baseline - references - proposals,
        total=total,
        images=images,
        workers=workers,
        seconds_per_tflop=per_tflop,
        seconds_per_image=per_image,
        hours=(total * per_tflop + images * per_image) / workers / _SECONDS_PER_HOUR,
    )


def _time(evaluator: Evaluator, plan: Plan) -> tuple[float, float]:
    """Measures seconds per TFLOP, and per image after sampling, of one worker after a warm-up."""
    task: Task = plan.rung_tasks(plan.blueprint.plain(_CALIBRATION_STEPS, plan.size), 0)[0]
    with one_thread():
        evaluator.evaluate(task)  # the warm-up
        outcome = evaluator.evaluate(task)
    if isinstance(outcome, Failure):
        raise RuntimeError(f"the model fails on the first prompts: {outcome.reason}")
    images = len(task.prompts)
    tflops = plan.price(task.schedule).tflops * images
    seconds = outcome.seconds
    return seconds["sampling"] / tflops, (seconds["decoding"] + seconds["scoring"]) / images


def _workers(settings: SearchSettings) -> int:
    """Returns the number of workers on this machine."""
    import torch

    if settings.workers is not None:
        return max(1, settings.workers)
    gpus = torch.cuda.device_count()
    share = settings.gpus_per_worker if settings.gpus_per_worker is not None else float(gpus > 0)
    return max(1, int(gpus / share + 1e-9) if share else os.cpu_count() or 1)
