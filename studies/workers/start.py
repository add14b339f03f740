"""Starts the workers that the settings ask for."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from studies.work.evaluator import Evaluator
from studies.work.own_options import drawing_price
from studies.workers.cargo import Cargo, cargo_of
from studies.workers.deaths import TaskLimit
from studies.workers.executors import Executor, LocalExecutor, device_of
from tuner.errors import UserError
from tuner.models import blueprint

if TYPE_CHECKING:
    from studies.work.encodings import Chunk
    from studies.work.own_options import Contender, OwnOptions
    from studies.work.task import Task
    from tuner.models import Blueprint, ModelOptions


class WorkerSettings(Protocol):
    """The part of the settings that workers need; searches and evaluations have one."""

    @property
    def model(self) -> str:
        """Short name, folder or hub id of the model."""

    @property
    def options(self) -> ModelOptions:
        """How a worker loads the model."""

    @property
    def workers(self) -> int | None:
        """Worker processes; 0 for this process, None for one per GPU share, or per CPU core."""

    @property
    def gpus_per_worker(self) -> float | None:
        """GPUs of each worker; None for 1 where there is a GPU, else 0."""

    @property
    def ray_address(self) -> str | None:
        """Ray cluster to join; None to start one on this machine."""

    @property
    def task_timeout(self) -> float | None:
        """Seconds after which the worker of a task is replaced; None as `TaskLimit` says."""


def cargo_for(settings: WorkerSettings, objectives: Sequence[str], own: Iterable[OwnOptions] = ()) -> Cargo:
    """Collects what the workers need from this machine: nothing, unless they run on a cluster.

    Args:
        settings: Place of the workers, and the model that each loads.
        objectives: ``name:weights`` of each objective.
        own: Options of the schedules that have their own.
    """
    if settings.ray_address is None or settings.workers == 0:
        return Cargo()
    return cargo_of(settings.model, objectives, [settings.options, *(one.options for one in own)])


def start_workers(
    settings: WorkerSettings,
    objectives: Sequence[str],
    baseline: Contender | None = None,
    own: Iterable[OwnOptions] = (),
    texts: Sequence[Chunk] = (),
) -> Executor:
    """Starts the workers.

    Args:
        settings: Number and place of the workers, and the model that each loads.
        objectives: ``name:weights`` of each objective.
        baseline: Reference of the fidelity objectives; None for the model's own baseline.
        own: Options of the schedules that have their own.
        texts: The prompts of every task.

    Raises:
        UserError: If the text encoders are to be freed, and schedules have options of their own.
    """
    own = tuple(own)
    if settings.options.free_text_encoders and own:
        raise UserError(
            "--free-text-encoders encodes text once, and some of these presets have guidance, a negative prompt "
            "or a LoRA of their own; leave it out, or evaluate them alone with these as options."
        )
    device = device_of(settings.gpus_per_worker)
    cargo = cargo_for(settings, objectives, own)
    load = functools.partial(
        Evaluator.load,
        cargo.model(settings.model),
        [cargo.objective(spec) for spec in objectives],
        device,
        cargo.options(settings.options),
        None if baseline is None else cargo.own(baseline),
        texts if settings.options.free_text_encoders else (),
        1.0 if settings.gpus_per_worker is None else settings.gpus_per_worker,
    )
    if settings.workers == 0:
        return LocalExecutor(load)
    from studies.workers.ray_executor import RayExecutor

    known = blueprint(settings.model).with_options(settings.options)
    limit = TaskLimit(settings.task_timeout, functools.partial(_tflops, known))
    return RayExecutor(load, settings.workers, settings.gpus_per_worker, settings.ray_address, limit, cargo)


def _tflops(known: Blueprint, task: Task) -> float:
    """Prices a task."""
    return drawing_price(task.schedule, task.own, known, task.size).tflops * len(task.prompts)
