"""Runs tasks in this process, and defines what every executor does."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

from studies.work.task import ChunkResult, Failure
from tuner.errors import UserError, one_line
from tuner.invariance import one_thread

if TYPE_CHECKING:
    from studies.work.evaluator import Evaluator
    from studies.work.task import Task

_LONGEST_REASON = 2000  # characters
_DEVICE_ERROR = re.compile(r"CUDA error|CUBLAS_STATUS|cuDNN error|CUDNN_STATUS|NCCL error|HIP error")

Load: TypeAlias = "Callable[[], Evaluator]"
"""Makes a worker's evaluator, in the worker's own process."""


def device_of(gpus_per_worker: float | None) -> str | None:
    """Returns the device of a worker: the CPU for 0 GPUs, else None for the first GPU if there is one."""
    return "cpu" if gpus_per_worker == 0 else None


def device_type(gpus_per_worker: float | None) -> str:
    """Returns ``cuda`` if workers run on a GPU of this machine, else ``cpu``."""
    import torch

    return "cuda" if gpus_per_worker != 0 and torch.cuda.is_available() else "cpu"


class Executor(Protocol):
    """Runs tasks in any order and returns their outcomes."""

    def submit(self, task: Task) -> None:
        """Adds a task; tasks start about in the order of submission."""

    def next(self) -> tuple[Task, ChunkResult | Failure]:
        """Waits until any submitted task ends.

        Raises:
            UserError: If no worker can be started because its weights cannot be loaded.
        """
        ...

    def close(self) -> None:
        """Stops all tasks and frees all workers; may be called twice."""


class LocalExecutor:
    """Runs tasks one after another in the calling process. The first task makes the evaluator.

    On a CPU it uses one core, as a worker does. More threads would wait for each other on a busy machine (8 images
    took 190 s on two busy cores, instead of 3 s).

    Args:
        load: Makes the evaluator.
    """

    def __init__(self, load: Load):
        self._load = load
        self._evaluator: Evaluator | None = None
        self._tasks: deque[Task] = deque()

    def submit(self, task: Task) -> None:
        """See `Executor.submit`."""
        self._tasks.append(task)

    def next(self) -> tuple[Task, ChunkResult | Failure]:
        """See `Executor.next`."""
        if self._evaluator is None:
            self._evaluator = self._load()
        task = self._tasks.popleft()
        try:
            with one_thread():
                return task, run_task(self._evaluator, task)
        except DeviceError as error:
            raise RuntimeError(
                f"the device failed ({error}), and a process cannot recover from that; run the same command with "
                "--resume, or with --workers 1 so that a failed worker is replaced."
            ) from error

    def close(self) -> None:
        """See `Executor.close`."""
        self._tasks.clear()
        self._evaluator = None


class DeviceError(Exception):
    """The process lost its GPU: every later CUDA call in this process would fail, too."""


def run_task(evaluator: Evaluator, task: Task) -> ChunkResult | Failure:
    """Runs a task and turns an exception into a transient failure.

    Raises:
        DeviceError: If the device, cuBLAS, cuDNN or NCCL failed, so that the process must be replaced.
    """
    try:
        return evaluator.evaluate(task)
    except UserError as error:
        return Failure(one_line(error))
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {one_line(error)[:_LONGEST_REASON]}"
        if _device_failed(error):
            raise DeviceError(reason) from None  # the cause may not survive pickling
        return Failure(reason, transient=True)


def _device_failed(error: BaseException) -> bool:
    """Whether an exception says that the GPU, or a library that runs on it, is in an unusable state."""
    import torch

    accelerator_error = getattr(torch, "AcceleratorError", ())  # torch 2.8 and newer
    return isinstance(error, accelerator_error) or (
        isinstance(error, RuntimeError) and _DEVICE_ERROR.search(str(error)) is not None
    )
