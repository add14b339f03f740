"""Starts the workers that the settings ask for."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from studies.work.evaluator import Evaluator
from studies.workers.executors import Executor, LocalExecutor, device_of

if TYPE_CHECKING:
    from studies.work.own_options import Contender
    from tuner.models import ModelOptions


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


def start_workers(
    settings: WorkerSettings, objectives: Sequence[str], baseline: Contender | None = None
) -> Executor:
    """Starts the workers.

    Args:
        settings: Number and place of the workers, and the model that each loads.
        objectives: ``name:weights`` of each objective.
        baseline: Reference of the fidelity objectives; None for the model's own baseline.
    """
    device = device_of(settings.gpus_per_worker)
    load = functools.partial(Evaluator.load, settings.model, objectives, device, settings.options, baseline)
    if settings.workers == 0:
        return LocalExecutor(load)
    from studies.workers.ray_executor import RayExecutor

    return RayExecutor(
        load, settings.workers, settings.gpus_per_worker, settings.ray_address, settings.task_timeout
    )
