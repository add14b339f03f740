"""What a search will cost at most, before it starts."""

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
    """What a search will spend at most: rungs, shared stages and scores of other studies make it less.

    Attributes:
        study: Name.
        trials: Each proposes a schedule at most.
        baseline: Denoiser TFLOPs of the baseline on the search prompts.
        references: Of all references.
        proposals: Of all proposals, each spending the whole budget on every search prompt; less where
            ``--max-tflops`` allows less.
        held_out: Of the baseline and the pick on the held-out prompts.
        total: Of all these.
        images: Images that are decoded and scored.
        workers: Processes that share the work.
        seconds_per_tflop: Measured on this device, one worker.
        seconds_per_image: Likewise, to decode and score an image.
        hours: All of it, on all workers, without the time to load the model.
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
    """Prices a search and times one chunk of prompts on this device; starts no study and writes nothing.

    Args:
        settings: What would be searched.
        load: Makes the evaluator; by default the model's and the objectives' own weights.

    Raises:
        UserError: If a setting is wrong, or if weights cannot be loaded.
        RuntimeError: If the model fails on the first prompts.
    """
    plan = make_plan(settings, latencies)
    search, held_out = len(plan.prompts.search), len(plan.prompts.held_out)
    references = sum(plan.price(reference.schedule).tflops for reference in plan.references) * search
    proposals = settings.trials * plan.budget.tflops * search
    if settings.max_tflops is not None:
        proposals = min(proposals, settings.max_tflops - plan.least_tflops)
    baseline = plan.baseline_price.tflops * search
    total = plan.least_tflops + proposals
    images = (1 + len(plan.references) + settings.trials) * search + 2 * held_out
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
    """Seconds per TFLOP, and per image after sampling, of one worker that is warm."""
    task: Task = plan.rung_tasks(plan.blueprint.plain(_CALIBRATION_STEPS, plan.size), 0)[0]
    with one_thread():
        evaluator.evaluate(task)  # pays for what is set up once
        outcome = evaluator.evaluate(task)
    if isinstance(outcome, Failure):
        raise RuntimeError(f"the model fails on the first prompts: {outcome.reason}")
    images = len(task.prompts)
    tflops = plan.price(task.schedule).tflops * images
    seconds = outcome.seconds
    return seconds["sampling"] / tflops, (seconds["decoding"] + seconds["scoring"]) / images


def _workers(settings: SearchSettings) -> int:
    """How many workers there will be on this machine."""
    import torch

    if settings.workers is not None:
        return max(1, settings.workers)
    gpus = torch.cuda.device_count()
    share = settings.gpus_per_worker if settings.gpus_per_worker is not None else float(gpus > 0)
    return max(1, int(gpus / share + 1e-9) if share else os.cpu_count() or 1)
