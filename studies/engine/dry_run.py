"""The largest cost of a search, counted before it starts: without weights, GPU or network."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from studies.plan.plan import Plan, make_plan
from studies.work.evaluator import Evaluator
from studies.work.task import Failure, Task
from studies.workers.executors import device_of, device_type
from studies.workers.latency import latencies
from tuner.devices import Speed
from tuner.errors import UserError
from tuner.flops import tflops_per_pass
from tuner.invariance import one_thread
from tuner.latency import LatencyTable

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

    from studies.plan.settings import SearchSettings
    from studies.workers.executors import Load
    from tuner.models import Blueprint, Size
    from tuner.schedule import Schedule

_CALIBRATION_STEPS = 2
_SECONDS_PER_HOUR = 3600


class Memory(BaseModel):
    """What a worker needs; its scorers come on top.

    Attributes:
        weights_bytes: The denoiser's weights in ``precision``.
        text_bytes: Those of the text encoders.
        autoencoder_bytes: Those of the autoencoder.
        activations_bytes: Upper bound of all other tensors while a batch of ``images`` is drawn; see
            `tuner.activations`.
        decoding_bytes: The same while one of them is decoded.
        total_bytes: The most of all these at once, with the weights placed as the options say.
        precision: Precision or quantisation of the weights.
        images: Images of a batch.
    """

    model_config = ConfigDict(frozen=True)

    weights_bytes: int
    text_bytes: int
    autoencoder_bytes: int
    activations_bytes: int
    decoding_bytes: int
    total_bytes: int
    precision: str
    images: int


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
        memory: What a worker needs; None where the family does not say how to build it.
        device: What the times are for; None if no device is known, and neither are the times.
        basis: Where the times come from.
        seconds_per_tflop: Seconds of one worker per TFLOP.
        seconds_per_image: Seconds of one worker to decode and score an image; None if not measured.
        hours: Hours on all workers, without the time to load the model.
        gpu_hours: Hours of all workers together.
        money: Their price; None without a price per hour.
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
    memory: Memory | None = None
    device: str | None = None
    basis: str | None = None
    seconds_per_tflop: float | None = None
    seconds_per_image: float | None = None
    hours: float | None = None
    gpu_hours: float | None = None
    money: float | None = None


def estimate(
    settings: SearchSettings,
    speed: Speed | Literal["here"] | None = None,
    price_per_hour: float | None = None,
    load: Load | None = None,
) -> Estimate:
    """Prices a search. It starts no study and writes nothing.

    Args:
        settings: The settings of the search.
        speed: How fast the device is that the search will run on; ``"here"`` to load the weights and time one
            chunk of prompts on this device. None for ``"here"`` where the weights lie in a folder, as those of
            `tiny` do, and for no times where they do not.
        price_per_hour: Price of an hour of one worker's device.
        load: Loads the evaluator to be timed; by default that of the settings' model and objectives.

    Raises:
        UserError: If a setting is wrong, if weights cannot be loaded, or if a time or a price is asked for and no
            speed is known.
        RuntimeError: If the model fails on the first prompts.
    """
    plan = make_plan(settings, functools.partial(_latencies, speed), _Unsearched())
    if speed is None and Path(plan.blueprint.source).is_dir():
        speed = "here"
    if speed == "here":
        speed = _timed(plan, load)
    search, held_out = len(plan.prompts.search), len(plan.prompts.held_out)
    references = sum(plan.price(reference.schedule).tflops for reference in plan.references) * search
    proposals = settings.trials * plan.budget.tflops * search
    if settings.max_tflops is not None:
        proposals = min(proposals, settings.max_tflops - plan.least_tflops)
    baseline = plan.baseline_price.tflops * search
    total = plan.least_tflops + proposals
    images = (1 + len(plan.references) + settings.trials) * search + 4 * held_out + 3 * len(plan.prompts.further)
    workers = _workers(settings, here=speed is None or speed.seconds_per_image is not None)
    found = Estimate(
        study=settings.name,
        trials=settings.trials,
        baseline=baseline,
        references=references,
        proposals=proposals,
        held_out=total - baseline - references - proposals,
        total=total,
        images=images,
        workers=workers,
        memory=_memory(plan, speed),
    )
    if speed is None:
        if price_per_hour is not None:
            raise UserError("A price needs hours, and no device is known; add --device NAME or --device-tflops N.")
        return found
    hours = (total * speed.seconds_per_tflop + images * (speed.seconds_per_image or 0.0)) / _SECONDS_PER_HOUR
    times = {
        "device": speed.device,
        "basis": speed.basis,
        "seconds_per_tflop": speed.seconds_per_tflop,
        "seconds_per_image": speed.seconds_per_image,
        "hours": hours / workers,
        "gpu_hours": hours,
        "money": None if price_per_hour is None else hours * price_per_hour,
    }
    return found.model_copy(update=times)


class _Unsearched:
    """The space of a study that is priced alone: nothing is drawn from it."""

    def suggest(self, trial: BaseTrial) -> Schedule:
        """See `search_spaces.SearchSpace`."""
        raise NotImplementedError

    def params_of(self, schedule: Schedule) -> dict[str, Any]:
        """See `search_spaces.SearchSpace`."""
        raise NotImplementedError


def _latencies(
    speed: Speed | Literal["here"] | None, settings: SearchSettings, model: Blueprint, size: Size
) -> LatencyTable:
    """Times network passes for a budget in seconds, or prices them by a stated speed.

    Raises:
        UserError: If there is no speed and the weights lie in no folder.
    """
    from search_spaces import stage_sizes

    if isinstance(speed, Speed):
        passes = {one: tflops_per_pass(model, one) * speed.seconds_per_tflop for one in stage_sizes(model, size)}
        return LatencyTable(speed.device, 0.0, passes)
    if speed is None and not Path(model.source).is_dir():
        raise UserError(
            f"Budget {settings.budget!r} is in seconds, and no device is known; add --device NAME or "
            "--device-tflops N to --dry-run."
        )
    return latencies(settings, model, size)


def _timed(plan: Plan, load: Load | None) -> Speed:
    """Measures seconds per TFLOP, and per image after sampling, of one worker after a warm-up."""
    settings = plan.settings
    device = device_of(settings.gpus_per_worker)
    evaluator = load() if load else Evaluator.load(settings.model, plan.objectives, device, settings.options)
    task: Task = plan.rung_tasks(plan.blueprint.plain(_CALIBRATION_STEPS, plan.size), 0)[0]
    with one_thread():
        evaluator.evaluate(task)  # the warm-up
        outcome = evaluator.evaluate(task)
    if isinstance(outcome, Failure):
        raise RuntimeError(f"the model fails on the first prompts: {outcome.reason}")
    images = len(task.prompts)
    tflops = plan.price(task.schedule).tflops * images
    seconds = outcome.seconds
    per_image = (seconds["decoding"] + seconds["scoring"]) / images
    return Speed("this device", seconds["sampling"] / tflops, per_image, "one chunk of prompts, timed here")


def _memory(plan: Plan, speed: Speed | None) -> Memory | None:
    """Counts the memory of a worker, in single precision only where it is timed on a CPU."""
    from tuner.memory import needed, precision_of, weights, working

    options = plan.settings.options
    on_cpu = (
        speed is not None
        and speed.seconds_per_image is not None
        and device_type(plan.settings.gpus_per_worker) == "cpu"
    )
    precision = precision_of(options, "cpu" if on_cpu else "cuda")
    try:
        sizes = weights(plan.blueprint).loaded(options)
        beside = working(plan.blueprint, plan.size, precision, bool(options.tiling))
    except UserError:
        return None
    return Memory(
        weights_bytes=sizes.denoising(precision),
        text_bytes=sizes.encoding(precision),
        autoencoder_bytes=sizes.decoding(precision),
        activations_bytes=beside.call * plan.chunk,
        decoding_bytes=beside.decoding,
        total_bytes=needed(
            sizes, beside, precision, options.offload, bool(options.free_text_encoders), plan.chunk
        ),
        precision=precision,
        images=plan.chunk,
    )


def _workers(settings: SearchSettings, here: bool) -> int:
    """Returns the number of workers: on this machine as a search would start them, elsewhere one unless given."""
    if settings.workers is not None:
        return max(1, settings.workers)
    if not here:
        return 1
    import torch

    gpus = torch.cuda.device_count()
    share = settings.gpus_per_worker if settings.gpus_per_worker is not None else float(gpus > 0)
    return max(1, int(gpus / share + 1e-9) if share else os.cpu_count() or 1)
