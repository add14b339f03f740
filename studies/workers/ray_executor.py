"""Runs tasks on long-lived Ray actors, on this machine or on a cluster."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from studies.work.task import ChunkResult, Failure
from studies.workers.cargo import Cargo
from studies.workers.deaths import MOST_DEATHS, Deaths, TaskLimit
from studies.workers.executors import DeviceError, run_task
from studies.workers.nodes import alive, check_alike, check_nodes, shares
from studies.workers.ray_connection import connect, passed_variables, take_variables
from studies.workers.task_queue import TaskQueue
from tuner.errors import UserError, one_line

if TYPE_CHECKING:
    from studies.work.evaluator import Evaluator
    from studies.work.task import Task
    from studies.workers.executors import Load

T = TypeVar("T")

_NOTHING = Cargo()

_LOOK_S = 1.0
"""Seconds between two looks at how long tasks have been running."""
_REPORTED_S = 60.0
"""Seconds after which workers that have not started are reported."""
_NODE_DIED = "node has died"  # in Ray's reason for the death of an actor


class RayExecutor:
    """Spreads tasks over actors; whichever is free takes the next one, or one of which it keeps the first stages.

    An actor that dies is replaced and its task is given to another. Tasks have no side effects, so running one
    twice changes nothing.

    Args:
        load: Makes the evaluator of a worker; must be picklable.
        workers: Number of actors; None for as many as fit the GPUs, or the CPU cores where there is no GPU.
        gpus_per_worker: GPUs of each, may be a fraction; None for 1 where there is a GPU, else 0.
        address: Cluster to join, e.g. ``auto``; None to start Ray on this machine, reachable from it alone.
        limit: After how long the worker of a task is replaced; by default as `TaskLimit` says.
        cargo: What workers on other machines need from this one.

    Raises:
        UserError: If there is no cluster at the address, if it is too small, or if a node lacks what workers need.
        RuntimeError: If Ray does not start on this machine.
    """

    def __init__(
        self,
        load: Load,
        workers: int | None = None,
        gpus_per_worker: float | None = None,
        address: str | None = None,
        limit: TaskLimit | None = None,
        cargo: Cargo = _NOTHING,
    ):
        self._cargo = cargo
        self._tasks = TaskQueue[Any]()
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, Task | None]] = {}  # None while the worker loads its evaluator
        self._began: dict[Any, float] = {}  # of running tasks; seconds of the monotonic clock
        self._limit = limit or TaskLimit()
        self._deaths = Deaths()
        self._deaths_while_loading = 0
        self._not_started: dict[Any, float] = {}  # by the reference to a worker's first answer; as `_began`
        self._owns_ray = connect(address, workers, cargo)
        try:
            count, self._gpus = shares(workers, gpus_per_worker)
            if address is not None:
                check_nodes(cargo, self._gpus)
            self._spawn = _spawner(load, self._gpus)
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
        from ray.exceptions import RayError, RayTaskError

        while True:
            finished, _ = ray.wait(list(self._busy), num_returns=1, timeout=_LOOK_S)
            self._report_waiting()
            if not finished:
                self._check_node()
                if (given_up := self._replace_hanging()) is not None:
                    return given_up
                continue
            done = finished[0]
            worker, task = self._busy.pop(done)
            began = self._began.pop(done, None)
            try:
                outcome = ray.get(done)
            except RayTaskError as error:
                if task is None or not isinstance(error.cause, DeviceError):
                    raise RuntimeError(f"a worker could not load the model: {one_line(error.cause)}") from error
                if (failed := self._replace(worker, task, error.cause)) is not None:
                    return task, failed
                continue
            except RayError as error:  # the worker died, or its result is lost with its node
                failed = self._replace(worker, task, error)
                if task is not None and failed is not None:
                    return task, failed
                continue
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

    def _check_node(self) -> None:
        """Ends the study where Ray's only node is lost, for nothing would run any more."""
        if self._owns_ray and not alive():
            raise RuntimeError("Ray has ended on this machine: its raylet was killed, perhaps for want of memory")

    def _add_worker(self) -> None:
        worker = self._spawn()
        self._not_started[worker.take.remote(passed_variables())] = time.monotonic()
        self._busy[worker.start.remote()] = (worker, None)

    def _report_waiting(self) -> None:
        """Warns once of each worker that Ray has found no place for."""
        import ray

        if not self._not_started:
            return
        started, _ = ray.wait(list(self._not_started), num_returns=len(self._not_started), timeout=0)
        for one in started:
            del self._not_started[one]
        now = time.monotonic()
        late = [one for one, asked in self._not_started.items() if now - asked > _REPORTED_S]
        for one in late:
            del self._not_started[one]
        if late:
            warnings.warn(
                f"{len(late)} of {len(self._idle) + len(self._busy)} workers have not started after "
                f"{_REPORTED_S:.0f} s: each waits for a free core and {self._gpus:g} free GPUs. Others may use "
                "the cluster, or a node was lost. The study goes on, and they start when there is room.",
                stacklevel=2,
            )

    def _assign(self) -> None:
        for worker, task in self._tasks.assign(self._idle):
            running = worker.run.remote(self._cargo.own(task))
            self._busy[running] = (worker, task)
            self._began[running] = time.monotonic()

    def _replace_hanging(self) -> tuple[Task, Failure] | None:
        """Replaces a worker whose task takes too long; returns the task if it has hung too many."""
        for running, began in self._began.items():
            worker, task = self._busy[running]
            assert task is not None  # what a worker loads has no beginning here
            limit = self._limit.seconds(task)
            if time.monotonic() - began > limit:
                del self._began[running], self._busy[running]
                failed = self._replace(
                    worker, task, TimeoutError(f"no answer after {limit:.0f} s, see --task-timeout")
                )
                return None if failed is None else (task, failed)
        return None

    def _replace(self, worker: Any, task: Task | None, error: Exception) -> Failure | None:
        """Replaces a worker; another one gets its task, or the task's failure is returned.

        The new worker may find no place while a node is away, so an idle one gets the task at once.
        """
        import ray

        ray.kill(worker)
        failed = self._count_death(task, error)
        self._add_worker()
        if task is not None and failed is None:
            self._tasks.put_first(task)
            self._assign()
        return failed

    def _count_death(self, task: Task | None, error: Exception) -> Failure | None:
        """Counts a worker's death, except with its node, which takes many at once; returns a task's failure."""
        if _NODE_DIED in str(error):
            return None
        if task is not None:
            return self._deaths.count(task, one_line(error))
        self._deaths_while_loading += 1
        if self._deaths_while_loading >= MOST_DEATHS:
            raise RuntimeError(
                f"{MOST_DEATHS} workers in a row died while they loaded the model, perhaps of too little "
                f"memory; try fewer --workers. The last one: {one_line(error)}"
            ) from error
        return None


def run_on_a_worker(
    function: Callable[[], T],
    workers: int | None = None,
    gpus_per_worker: float | None = None,
    address: str | None = None,
    cargo: Cargo = _NOTHING,
) -> T:
    """Runs a function once on a worker, with a worker's share of a GPU, to know what it would say on all of them.

    Args:
        function: Must be picklable.
        workers: See `RayExecutor`.
        gpus_per_worker: See `RayExecutor`.
        address: See `RayExecutor`.
        cargo: See `RayExecutor`.

    Raises:
        UserError: If the function raises it, if there is no such cluster, or if its GPUs are of several kinds.
        RuntimeError: If the function fails for any other reason, or if Ray does not start.
    """
    owns_ray = connect(address, workers, cargo)
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        _, gpus = shares(workers, gpus_per_worker)
        if address is not None:
            check_nodes(cargo, gpus)
        check_alike(gpus)
        remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(_call)
        result: T = ray.get(remote.remote(function, passed_variables()))
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


def _call(function: Callable[[], T], variables: Mapping[str, str]) -> T:
    """Calls a function: Ray takes functions and classes and no other callable."""
    take_variables(variables)
    return function()


class _Worker:
    """The code of an actor."""

    def __init__(self, load: Load):
        self._load = load

    def take(self, variables: Mapping[str, str]) -> None:
        """Takes variables of the driver; called first."""
        take_variables(variables)

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
