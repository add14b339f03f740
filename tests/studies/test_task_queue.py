from __future__ import annotations

import functools
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.simulator import Attempt, SimulatedExecutor
from studies.work.task import ChunkResult, Failure, Task
from studies.workers import task_queue
from studies.workers.ray_executor import RayExecutor
from studies.workers.task_queue import TaskQueue
from tests.studies.toy import TOY, load_toy
from tuner.schedule import Schedule


def schedule(start: float) -> Schedule:
    """All of them begin alike."""
    stages = [{"scale": 0.5, "sigmas": [1.0, 0.5, 0.0]}, {"sigmas": [start, 0.0]}]
    return Schedule.model_validate({"stages": stages})


def task(chunk: int, start: float = 0.6) -> Task:
    return Task(schedule(start), (f"prompt {chunk}",), (chunk,), TOY.size)


def queue_of(*chunks: int) -> TaskQueue[str]:
    queue = TaskQueue[str]()
    for chunk in chunks:
        queue.put(task(chunk))
    return queue


def assigned(queue: TaskQueue[str], *idle: str) -> list[tuple[str, int]]:
    return [(worker, given.seeds[0]) for worker, given in queue.assign(list(idle))]


def test_a_worker_gets_what_begins_like_its_earlier_tasks_before_the_first_in_line() -> None:
    queue = queue_of(0, 1)
    first = dict(assigned(queue, "a", "b"))
    for chunk in (2, first["a"], first["b"]):
        queue.put(task(chunk, start=0.7))
    assert assigned(queue, "b") == [("b", first["b"])]
    assert assigned(queue, "a") == [("a", first["a"])]
    assert assigned(queue, "a") == [("a", 2)]


def test_what_begins_otherwise_goes_in_line_to_whoever_is_free() -> None:
    queue = queue_of(0)
    assert assigned(queue, "a") == [("a", 0)]
    for other in (TOY.plain(3), TOY.plain(4)):
        queue.put(Task(other, ("prompt 0",), (0,), TOY.size))
    queue.put_first(task(7))
    assert [given.schedule.stages for _, given in queue.assign(["a", "b", "c"])] == [
        task(7).schedule.stages,
        TOY.plain(3).stages,
        TOY.plain(4).stages,
    ]


def test_what_is_far_behind_does_not_overtake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_queue, "_AHEAD", 2)
    queue = queue_of(0)
    assert assigned(queue, "a") == [("a", 0)]
    for chunk in (1, 2, 0):
        queue.put(task(chunk))
    assert assigned(queue, "a") == [("a", 1)]
    assert assigned(queue, "a") == [("a", 0)]


@given(
    rounds=st.lists(
        st.tuples(st.lists(st.integers(0, 5), max_size=6), st.sets(st.sampled_from("abcd"))), max_size=12
    )
)
def test_no_worker_and_no_task_waits_for_a_match(rounds: list[tuple[list[int], set[str]]]) -> None:
    queue, waiting = TaskQueue[str](), list[int]()
    for chunks, idle in rounds:
        for chunk in chunks:
            queue.put(task(chunk))
        waiting += chunks
        free = sorted(idle)
        given = list(queue.assign(free))
        assert len(given) == min(len(waiting), len(idle))
        assert sorted([worker for worker, _ in given] + free) == sorted(idle)
        for _, one in given:
            waiting.remove(one.seeds[0])


def test_simulated_workers_do_the_same() -> None:
    executor = SimulatedExecutor(2, lambda task: ChunkResult({}), lambda task, crashes: Attempt(1.0))
    for chunk, start in ((0, 0.6), (1, 0.6), (1, 0.7), (0, 0.7)):
        executor.submit(task(chunk, start))
    for _ in range(4):
        executor.next()
    workers = [{run.worker for run in executor.runs if run.task.seeds == (chunk,)} for chunk in (0, 1)]
    assert sorted(workers, key=min) == [{0}, {1}]


class Together:
    """Begins no task before two workers are about to."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._evaluator = load_toy()

    def evaluate(self, task: Task) -> ChunkResult | Failure:
        (self._folder / str(os.getpid())).touch()
        while len(list(self._folder.iterdir())) < 2:
            time.sleep(0.01)
        return self._evaluator.evaluate(task)


@pytest.mark.servers
def test_real_workers_go_on_from_the_stages_that_they_have_kept(tmp_path: Path) -> None:
    executor = RayExecutor(functools.partial(Together, tmp_path), workers=2)
    kept = []
    try:
        for start in (0.6, 0.7, 0.8):
            executor.submit(task(0, start))
            executor.submit(task(1, start))
            for _ in range(2):
                _, outcome = executor.next()
                assert isinstance(outcome, ChunkResult), outcome
                kept.append(outcome.kept_stages)
    finally:
        executor.close()
    assert kept == [0, 0, 1, 1, 1, 1]


def test_a_queue_remembers_the_latest_prefixes_of_a_worker_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_queue, "_REMEMBERED", 2)
    queue = queue_of(0, 1, 2)
    assert len(assigned(queue, "a")) + len(assigned(queue, "a")) + len(assigned(queue, "a")) == 3
    for chunk in (7, 0, 1):
        queue.put(task(chunk, start=0.7))
    assert assigned(queue, "a") == [("a", 1)]  # 0 is forgotten
    assert assigned(queue, "a") == [("a", 7)]
