"""The real loop on simulated workers: hours of waiting, crashes and stragglers in seconds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks import busy_workers
from benchmarks.simulator import Attempt, SimulatedExecutor
from studies import StudyResult, search
from studies.work.task import ChunkResult, Failure, Task
from tests.studies.test_search import comparable
from tests.studies.toy import TOY, toy_settings
from tuner.schedule import Schedule


def chance(*of: Any) -> float:
    """A number in [0, 1) that is always the same for the same thing."""
    return int.from_bytes(hashlib.sha256(repr(of).encode()).digest()[:6], "big") / 2**48


def evaluate(task: Task) -> ChunkResult:
    merit = -1 / task.schedule.steps + 0.1 * chance(task.schedule.content_hash)
    scores = [merit + 0.1 * chance(seed) for seed in task.seeds]
    return ChunkResult({"clip": scores, "image_reward": [score - chance(score) / 9 for score in scores]})


def stragglers(task: Task, crashes: int) -> Attempt:
    """Half a minute; one task in ten takes three times as long."""
    return Attempt(90.0 if chance("straggler", task.key) < 0.1 else 30.0)


def crashing(task: Task, crashes: int) -> Attempt:
    """One attempt in five kills its worker halfway, but none does so three times."""
    if crashes < 2 and chance("crash", task.key, crashes) < 0.2:
        return Attempt(15.0, crashes=True)
    return stragglers(task, crashes)


def tasks(count: int) -> list[Task]:
    schedule = Schedule(stages=TOY.plain(3).stages)
    return [Task(schedule, (f"prompt {seed}",), (seed,), TOY.size) for seed in range(count)]


def run(executor: SimulatedExecutor, submitted: list[Task]) -> list[tuple[float, int, bool]]:
    """When which task came back, and whether it succeeded."""
    for task in submitted:
        executor.submit(task)
    found = []
    for _ in submitted:
        task, outcome = executor.next()
        found.append((executor.now, task.seeds[0], not isinstance(outcome, Failure)))
    return found


def test_a_free_worker_takes_the_next_task() -> None:
    seconds = [5.0, 1.0, 2.0, 4.0]
    executor = SimulatedExecutor(2, evaluate, lambda task, crashes: Attempt(seconds[task.seeds[0]]))
    assert run(executor, tasks(4)) == [(1, 1, True), (3, 2, True), (5, 0, True), (7, 3, True)]
    assert [(done.task.seeds[0], done.start, done.end) for done in executor.runs] == [
        (0, 0, 5),
        (1, 0, 1),
        (2, 1, 3),
        (3, 3, 7),
    ]
    assert executor.busy_share(3) == 1
    assert executor.busy_share(7) == 12 / 14


def test_a_crashed_task_goes_first_to_another_worker() -> None:
    def fate(task: Task, crashes: int) -> Attempt:
        return Attempt(2.0, crashes=True) if task.seeds[0] == 0 and crashes == 0 else Attempt(3.0)

    executor = SimulatedExecutor(2, evaluate, fate, restart_s=10.0)
    # Task 0 dies at 2; its worker is back at 12, and the other one is free at 3.
    assert run(executor, tasks(3)) == [(3, 1, True), (6, 0, True), (9, 2, True)]


def test_a_task_that_kills_three_workers_fails() -> None:
    executor = SimulatedExecutor(1, evaluate, lambda task, crashes: Attempt(1.0, crashes=task.seeds[0] == 0))
    assert run(executor, tasks(2)) == [(3, 0, False), (4, 1, True)]


@pytest.fixture(scope="module")
def toy_search(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[StudyResult, SimulatedExecutor]]:
    import studies.plan.plan
    from tests.studies.toy import find_blueprint

    def run_search(workers: int, fate: Any, **changes: Any) -> tuple[StudyResult, SimulatedExecutor]:
        executor = SimulatedExecutor(workers, evaluate, fate, restart_s=20.0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(studies.plan.plan, "blueprint", find_blueprint)
            settings = toy_settings(tmp_path_factory.mktemp("simulated"), **changes)
            return search(settings, executor=executor), executor

    return run_search


@pytest.mark.parametrize(("workers", "fate"), [(2, stragglers), (8, crashing)])
def test_the_outcome_is_that_of_one_worker_whatever_happens(toy_search: Any, workers: int, fate: Any) -> None:
    alone, _ = toy_search(1, lambda task, crashes: Attempt(1.0), trials=12)
    result, _ = toy_search(workers, fate, trials=12)
    assert comparable(result) == comparable(alone)
    assert result.front == alone.front


UNITS = {"search_prompts": 16, "chunk": 1, "held_out_prompts": 2, "rungs": 1}


def drained_from(executor: SimulatedExecutor, lag: int) -> float:
    """When no more was left than the units of ``lag`` trials; from then on workers run idle, as they must."""
    starts = sorted(run.start for run in executor.runs if run.task.seeds[0] < UNITS["search_prompts"])
    return starts[-lag * UNITS["search_prompts"]]


def test_stragglers_do_not_idle_the_other_workers(toy_search: Any) -> None:
    # With 16 units of work per trial, 24 trials in flight are six units for each of 64 workers.
    _, executor = toy_search(64, stragglers, trials=120, lag=24, **UNITS)
    assert executor.busy_share(drained_from(executor, 24)) >= 0.97


def test_a_short_window_idles_them(toy_search: Any) -> None:
    _, executor = toy_search(64, stragglers, trials=30, lag=4, **UNITS)
    assert executor.busy_share(drained_from(executor, 4)) < 0.9


def test_with_rungs_workers_are_busy_where_the_window_is_longer() -> None:
    searches = {lag: busy_workers.measure(workers=4, units=8, rungs=2, lag=lag) for lag in (1, 6)}
    assert all(search["stopped"] > 0.4 for search in searches.values())
    assert searches[1]["busy"] < 0.9
    assert searches[6]["busy"] >= 0.97
