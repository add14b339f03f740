"""Runs tasks on long-lived Ray actors, on this machine or on a cluster."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from studies.records.environment import environment
from studies.work.task import ChunkResult, Failure
from studies.workers.deaths import MOST_DEATHS, Deaths, TaskLimit
from studies.workers.executors import DeviceError, run_task
from studies.workers.task_queue import TaskQueue
from tuner.errors import UserError, one_line

if TYPE_CHECKING:
    from studies.work.evaluator import Evaluator
    from studies.work.task import Task
    from studies.workers.executors import Load

T = TypeVar("T")

_LOOK_S = 1.0
"""Seconds between two looks at how long tasks have been running."""
_KNOCK_S = 5.0

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # Ray prints the death of a worker on stdout, where only results belong
}
_LOCAL_ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # binds every port to loopback instead of to all addresses
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait would starve the other workers
}


class RayExecutor:
    """Spreads tasks over actors; whichever is free takes the next one, or one of which it keeps the first stages.

    An actor that dies is replaced and its task is given to another. Tasks have no side effects, so running one
    twice changes nothing.

    Args:
        load: Makes the evaluator of a worker; must be picklable.
        workers: Number of actors; None for as many as fit the GPUs, or the CPU cores where there is no GPU.
        gpus_per_worker: GPUs of each, may be a fraction; None for 1 where there is a GPU, else 0.
        address: Cluster to join, e.g. ``auto``; None to start Ray on this machine, reachable from it alone.
        task_timeout: Seconds after which the worker of a task is replaced; None as `TaskLimit` says.

    Raises:
        UserError: If there is no cluster at the address, or if it is too small.
        RuntimeError: If Ray does not start on this machine.
    """

    def __init__(
        self,
        load: Load,
        workers: int | None = None,
        gpus_per_worker: float | None = None,
        address: str | None = None,
        task_timeout: float | None = None,
    ):
        self._tasks = TaskQueue[Any]()
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, Task | None]] = {}  # None while the worker loads its evaluator
        self._began: dict[Any, float] = {}  # of running tasks; seconds of the monotonic clock
        self._limit = TaskLimit(task_timeout)
        self._deaths = Deaths()
        self._deaths_while_loading = 0
        self._owns_ray = _connect(address, workers)
        try:
            count, gpus = _shares(workers, gpus_per_worker)
            self._spawn = _spawner(load, gpus)
            for _ in range(count):
                self._add_worker()
        except BaseException:
            self.close()
            raise

    def submit(self, task: Task) -> None:
        """See `Executor.submit`."""
        self._tasks.put(task)
        self._assign()

    def next(self) -> tuple[Task, ChunkResult | Failure]:
        """See `Executor.next`."""
        import ray
        from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError, WorkerCrashedError

        while True:
            finished, _ = ray.wait(list(self._busy), num_returns=1, timeout=_LOOK_S)
            if not finished:
                if (given_up := self._replace_hanging()) is not None:
                    return given_up
                continue
            done = finished[0]
            worker, task = self._busy.pop(done)
            began = self._began.pop(done, None)
            try:
                outcome = ray.get(done)
            except (RayActorError, WorkerCrashedError, OutOfMemoryError) as error:
                failed = self._bury(task, error)
                self._add_worker()
                if task is not None and failed is not None:
                    return task, failed
                continue
            except RayTaskError as error:
                if task is not None and isinstance(error.cause, DeviceError):
                    ray.kill(worker)
                    failed = self._bury(task, error.cause)
                    self._add_worker()
                    if failed is not None:
                        return task, failed
                    continue
                raise RuntimeError(f"a worker could not load the model: {one_line(error.cause)}") from error
            if task is None and outcome is not None:
                raise UserError(outcome)
            self._idle.append(worker)
            self._assign()
            if task is not None:
                if began is not None:
                    self._limit.finished(time.monotonic() - began)
                return task, outcome
            self._deaths_while_loading = 0

    def close(self) -> None:
        """See `Executor.close`."""
        import ray

        if not ray.is_initialized():
            return
        for worker in [*self._idle, *(worker for worker, _ in self._busy.values())]:
            ray.kill(worker)
        self._idle, self._busy = [], {}
        if self._owns_ray:
            ray.shutdown()

    def _add_worker(self) -> None:
        worker = self._spawn()
        self._busy[worker.start.remote()] = (worker, None)

    def _assign(self) -> None:
        for worker, task in self._tasks.assign(self._idle):
            running = worker.run.remote(task)
            self._busy[running] = (worker, task)
            self._began[running] = time.monotonic()

    def _replace_hanging(self) -> tuple[Task, Failure] | None:
        """Replaces a worker whose task takes too long; returns the task if it has hung too many."""
        import ray

        limit = self._limit.seconds
        for running, began in self._began.items():
            if time.monotonic() - began > limit:
                del self._began[running]
                worker, task = self._busy.pop(running)
                ray.kill(worker)
                failed = self._bury(task, TimeoutError(f"no answer after {limit:.0f} s, see --task-timeout"))
                self._add_worker()
                return None if task is None or failed is None else (task, failed)
        return None

    def _bury(self, task: Task | None, error: Exception) -> Failure | None:
        """Counts a worker's death; puts its task back first in the queue, or returns the task's failure."""
        if task is None:
            self._deaths_while_loading += 1
            if self._deaths_while_loading >= MOST_DEATHS:
                raise RuntimeError(
                    f"{MOST_DEATHS} workers in a row died while they loaded the model, perhaps of too little "
                    f"memory; try fewer --workers. The last one: {one_line(error)}"
                ) from error
            return None
        failed = self._deaths.count(task, one_line(error))
        if failed is None:
            self._tasks.put_first(task)
        return failed


def run_on_a_worker(
    function: Callable[[], T],
    workers: int | None = None,
    gpus_per_worker: float | None = None,
    address: str | None = None,
) -> T:
    """Runs a function once on a worker, with a worker's share of a GPU.

    Args:
        function: Must be picklable.
        workers: See `RayExecutor`.
        gpus_per_worker: See `RayExecutor`.
        address: See `RayExecutor`.

    Raises:
        UserError: If the function raises it, or if there is no such cluster.
        RuntimeError: If the function fails for any other reason, or if Ray does not start.
    """
    owns_ray = _connect(address, workers)
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        _, gpus = _shares(workers, gpus_per_worker)
        remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(_call)
        result: T = ray.get(remote.remote(function))
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from error
        raise RuntimeError(f"a worker failed: {one_line(error.cause)}") from error
    except RayError as error:
        raise RuntimeError(f"a worker failed: {one_line(error)}") from error
    finally:
        if owns_ray:
            ray.shutdown()
    return result


def _call(function: Callable[[], T]) -> T:
    """Calls a function: Ray takes functions and classes and no other callable."""
    return function()


class _Worker:
    """The code of an actor."""

    def __init__(self, load: Load):
        self._load = load

    def start(self) -> str | None:
        """Loads the evaluator; returns the message of a `UserError`, or None."""
        import torch

        torch.set_num_threads(1)  # there is a worker per core, or the work is on a GPU
        try:
            self._evaluator: Evaluator = self._load()
        except UserError as error:
            return str(error)
        return None

    def run(self, task: Task) -> ChunkResult | Failure:
        """Runs a task; raises `DeviceError` if this process has to be replaced."""
        return run_task(self._evaluator, task)


def _spawner(load: Load, gpus: float) -> Any:
    import ray

    actor = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=0)(_Worker)
    return lambda: actor.remote(load)


def _connect(address: str | None, workers: int | None) -> bool:
    """Connects to Ray; returns whether this process started it and must shut it down."""
    with environment(_ENVIRONMENT | (_LOCAL_ENVIRONMENT if address is None else {})), _own_sigterm():
        import ray

        if ray.is_initialized():
            return False
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if address is None:
            cores = max(workers or 0, os.cpu_count() or 1)
            try:
                ray.init(address="local", num_cpus=cores, include_dashboard=False, **quiet)
            except Exception as error:  # Ray gives its processes 30 s to start and then raises a bare Exception
                ray.shutdown()
                raise RuntimeError(
                    f"Ray did not start on this machine, which may be too busy ({one_line(error)}); try again, or "
                    "use `--workers 0` to evaluate in one process."
                ) from error
            return True
        try:
            _knock(address)
            ray.init(address=address, **quiet)
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(
                f"No Ray cluster answers at {address!r} ({one_line(error)}); start one with `ray start --head`, "
                "or leave --ray-address out to use this machine."
            ) from error
        return True


def _knock(address: str) -> None:
    """Opens and closes a connection to ``HOST:PORT``: Ray itself tries a closed port for minutes.

    Raises:
        OSError: If nothing answers within seconds.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keeps what this process does at SIGTERM: Ray would exit at once, without saving or a word."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _shares(workers: int | None, gpus_per_worker: float | None) -> tuple[int, float]:
    """Returns the number of workers and the GPUs of each."""
    import ray

    resources = ray.cluster_resources()
    all_gpus, cores = resources.get("GPU", 0.0), int(resources.get("CPU", 0))
    gpus = gpus_per_worker if gpus_per_worker is not None else float(all_gpus > 0)
    fitting = min(cores, int(all_gpus / gpus + 1e-9)) if gpus else cores
    if fitting < (workers or 1):
        raise UserError(
            f"{workers or 1} workers with {gpus:g} GPUs and 1 core each do not fit {all_gpus:g} GPUs and {cores} "
            f"cores; at most {fitting} do. Ask for fewer --workers or less --gpus-per-worker."
        )
    return workers or fitting, gpus
