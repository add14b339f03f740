"""Real Ray on this machine, started once."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import studies.workers.nodes as nodes
import studies.workers.ray_executor as ray_executor
from benchmarks.processes import name_of, wait_until
from studies import search
from studies.records.environment import environment
from studies.work.evaluator import Evaluator
from studies.work.task import ChunkResult, Failure, Task
from studies.workers.cargo import Cargo
from studies.workers.deaths import MOST_DEATHS, TaskLimit
from studies.workers.ray_connection import ENVIRONMENT, LOCAL_ENVIRONMENT, connect
from studies.workers.ray_executor import RayExecutor, run_on_a_worker
from studies.workers.reaper import of_session
from tests.studies.test_search import comparable
from tests.studies.toy import TOY, Counting, Dying, LosingDevice, load_toy, load_toy_with, toy_settings
from tuner.errors import UserError

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module", autouse=True)
def ray() -> Iterator[Any]:
    """Keeps Ray up for the whole file: an executor uses what it finds and leaves it running."""
    before = set(os.environ)
    assert connect(None, 2, Cargo())
    assert not (os.environ.keys() - before) & (ENVIRONMENT | LOCAL_ENVIRONMENT).keys()
    import ray

    yield ray
    ray.shutdown()


def tasks(count: int) -> list[Task]:
    schedule = TOY.plain(3)
    return [Task(schedule, (f"prompt {seed}",), (seed,), TOY.size) for seed in range(count)]


def run_all(executor: RayExecutor, submitted: list[Task]) -> dict[Any, ChunkResult | Failure]:
    for task in submitted:
        executor.submit(task)
    outcomes = {}
    for _ in submitted:
        task, outcome = executor.next()
        outcomes[task.key] = outcome
    executor.close()
    return outcomes


def scores(outcome: ChunkResult | Failure) -> Any:
    assert isinstance(outcome, ChunkResult), outcome
    return outcome.scores


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_study_of_one_process(tmp_path: Path, workers: int) -> None:
    local = search(toy_settings(tmp_path / "local"), executor=Counting())
    on_ray = search(toy_settings(tmp_path / "ray"), executor=RayExecutor(load_toy, workers=workers))
    assert comparable(on_ray) == comparable(local)
    assert on_ray.front == local.front


def test_workers_find_the_users_own_function() -> None:
    outcomes = run_all(RayExecutor(functools.partial(load_toy_with, "tests.studies.toy:whiteness")), tasks(3))
    assert {tuple(scores(outcome)) for outcome in outcomes.values()} == {("tests.studies.toy:whiteness",)}
    assert scores(outcomes[tasks(3)[2].key]) == scores(
        load_toy_with("tests.studies.toy:whiteness").evaluate(tasks(3)[2])
    )


def test_a_worker_that_lost_its_device_is_replaced_and_loses_no_task(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).touch()
    outcomes = run_all(RayExecutor(functools.partial(LosingDevice, tmp_path), workers=2), tasks(6))
    assert not list(tmp_path.iterdir())
    assert all(scores(outcomes[task.key]) == scores(load_toy().evaluate(task)) for task in tasks(6))


def test_a_killed_worker_is_replaced_and_its_task_runs_again(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).touch()
    outcomes = run_all(RayExecutor(functools.partial(Dying, tmp_path), workers=2), tasks(6))
    assert list(tmp_path.iterdir()) == []  # both deaths were died
    evaluator = load_toy()
    assert {task.key: scores(evaluator.evaluate(task)) for task in tasks(6)} == {
        key: scores(outcome) for key, outcome in outcomes.items()
    }


def test_a_search_survives_the_death_of_a_worker(tmp_path: Path) -> None:
    deaths = tmp_path / "deaths"
    deaths.mkdir()
    (deaths / "one").touch()
    executor = RayExecutor(functools.partial(Dying, deaths, seed=3), workers=2)
    result = search(toy_settings(tmp_path / "ray"), executor=executor)
    assert list(deaths.iterdir()) == []
    unharmed = search(toy_settings(tmp_path / "local"), executor=Counting())
    assert result.front == unharmed.front
    assert result.trials == unharmed.trials


def test_a_task_that_keeps_killing_workers_fails_alone(tmp_path: Path) -> None:
    for death in range(MOST_DEATHS):
        (tmp_path / str(death)).touch()
    submitted = tasks(4)
    outcomes = run_all(RayExecutor(functools.partial(Dying, tmp_path, seed=1), workers=2), submitted)
    failed = outcomes.pop(submitted[1].key)
    assert isinstance(failed, Failure)
    assert f"died {MOST_DEATHS} times" in failed.reason
    assert all(isinstance(outcome, ChunkResult) for outcome in outcomes.values())


def raise_user_error() -> Evaluator:
    raise UserError("CLIP weights 'nowhere' are not a folder.")


def test_weights_that_cannot_be_loaded_are_the_users_error() -> None:
    executor = RayExecutor(raise_user_error, workers=1)
    executor.submit(tasks(1)[0])
    with pytest.raises(UserError, match="'nowhere' are not a folder"):
        executor.next()
    executor.close()


def raise_import_error() -> Evaluator:
    raise ImportError("No module named 'tuner'")


def test_any_other_trouble_while_loading_ends_the_study_in_one_line() -> None:
    executor = RayExecutor(raise_import_error, workers=1)
    executor.submit(tasks(1)[0])
    with pytest.raises(RuntimeError, match="a worker could not load the model: No module named 'tuner'"):
        executor.next()
    executor.close()


class Hanging:
    """Hangs at a task as often as there are files in a folder, then works."""

    def __init__(self, hangs: Path):
        self._hangs = hangs
        self._inner = load_toy()

    def evaluate(self, task: Task) -> ChunkResult | Failure:
        if task.seeds == (1,) and (left := sorted(self._hangs.iterdir())):
            left[0].unlink()
            time.sleep(600)
        return self._inner.evaluate(task)


def test_a_task_that_hangs_goes_to_another_worker(tmp_path: Path) -> None:
    (tmp_path / "once").touch()
    submitted = tasks(3)
    load = functools.partial(Hanging, tmp_path)
    outcomes = run_all(RayExecutor(load, workers=1, limit=TaskLimit(5.0)), submitted)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
    assert all(scores(outcomes[task.key]) == scores(load_toy().evaluate(task)) for task in submitted)


def test_an_idle_worker_gets_the_task_of_a_dead_one_whose_successor_finds_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one").touch()
    executor = RayExecutor(functools.partial(Dying, tmp_path, seed=0), workers=2)
    while len(executor._idle) < 2:
        executor.submit(tasks(2)[1])
        executor.next()
    homeless = ray_executor._spawner(load_toy, gpus=1000.0)
    monkeypatch.setattr(executor, "_spawn", homeless)
    outcomes = run_all(executor, tasks(1))
    assert list(tmp_path.iterdir()) == []
    assert scores(outcomes[tasks(1)[0].key]) == scores(load_toy().evaluate(tasks(1)[0]))


def test_a_node_that_dies_with_many_workers_fails_no_task() -> None:
    executor = RayExecutor(load_toy, workers=1)
    lost = RuntimeError("The actor died because its node has died.")
    assert [executor._count_death(tasks(1)[0], lost) for _ in range(2 * MOST_DEATHS)] == [None] * 2 * MOST_DEATHS
    assert "died" in str([executor._count_death(tasks(1)[0], MemoryError()) for _ in range(MOST_DEATHS)][-1])
    executor.close()


class Raising:
    def evaluate(self, task: Task) -> ChunkResult | Failure:
        raise ZeroDivisionError("no such luck")


def test_an_exception_fails_the_task_and_the_worker_lives_on() -> None:
    outcomes = run_all(RayExecutor(Raising, workers=1), tasks(2))  # type: ignore[arg-type]
    assert set(outcomes.values()) == {Failure("ZeroDivisionError: no such luck", transient=True)}


@pytest.mark.parametrize(("workers", "gpus"), [(1000, None), (1, 1000.0)])
def test_more_workers_than_fit_are_refused(workers: int, gpus: float | None) -> None:
    with pytest.raises(UserError, match=r"do not fit.*--workers"):
        RayExecutor(load_toy, workers=workers, gpus_per_worker=gpus)


def test_the_environment_is_put_back() -> None:
    with environment({"TUNER_TEST_NEW": "1", "PATH": "elsewhere"}):
        assert os.environ["TUNER_TEST_NEW"] == "1"
        assert os.environ["PATH"] != "elsewhere"
    assert "TUNER_TEST_NEW" not in os.environ


def _fail(error: Exception) -> None:
    raise error


def test_a_function_runs_where_a_worker_would() -> None:
    assert run_on_a_worker(os.getpid, workers=1) != os.getpid()
    with pytest.raises(UserError, match=r"^no weights\.$"):
        run_on_a_worker(functools.partial(_fail, UserError("no weights.")), workers=1)
    with pytest.raises(RuntimeError, match="a worker failed: no memory"):
        run_on_a_worker(functools.partial(_fail, MemoryError("no memory")), workers=1)


def test_workers_that_find_no_place_are_reported(ray: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Guest:
        def here(self) -> None: ...

    guest = ray.remote(num_cpus=1)(Guest).remote()
    ray.get(guest.here.remote())
    monkeypatch.setattr(ray_executor, "_REPORTED_S", 0.1)
    with pytest.warns(UserWarning, match=r"[12] of 2 workers have not started"):
        run_all(RayExecutor(load_toy, workers=int(ray.cluster_resources()["CPU"])), tasks(2))
    ray.kill(guest)


def test_a_node_that_is_lost_before_it_answers_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    here = nodes.alive()
    lost = here[0] | {"NodeID": "ab" * 28}
    looks = [[*here, lost], here]
    monkeypatch.setattr(nodes, "alive", lambda: looks.pop(0))
    nodes.check_nodes(Cargo(), 0.0)
    monkeypatch.setattr(nodes, "alive", lambda: [*here, lost])
    with pytest.raises(UserError, match=r"node .* \(abababab\) cannot work"):
        nodes.check_nodes(Cargo(), 0.0)


_ASK_A_WORKER = """
import os
import subprocess
import sys
from studies.workers.ray_executor import run_on_a_worker

print(run_on_a_worker(os.getcwd, workers=1))
"""


def test_no_file_of_the_user_hides_a_package_from_the_workers(tmp_path: Path) -> None:
    script = tmp_path / "bin" / "script.py"
    script.parent.mkdir()
    script.write_text(_ASK_A_WORKER)
    here = tmp_path / "here"
    here.mkdir()
    for name in ("studies", "objectives", "tuner"):
        (here / f"{name}.py").write_text("raise RuntimeError('not ours')")
    path = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=here,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == str(here), done.stderr


_WITHOUT_RAYLET = """
import os
import signal
from benchmarks.processes import processes
from studies.workers.ray_executor import RayExecutor
from tests.studies.test_ray_executor import tasks
from tests.studies.toy import load_toy

executor = RayExecutor(load_toy, workers=1)
(raylet,) = processes(os.getpid(), "raylet")
os.kill(raylet, signal.SIGKILL)
try:
    for task in tasks(10**6):  # a worker that is there may answer for a while
        executor.submit(task)
        executor.next()
finally:
    executor.close()
"""


def test_nobody_waits_for_workers_when_ray_was_killed() -> None:
    done = subprocess.run([sys.executable, "-c", _WITHOUT_RAYLET], stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert "RuntimeError: Ray has ended on this machine" in done.stderr


_KILLED = """
import os
import signal
from studies.workers.cargo import Cargo
from studies.workers.ray_connection import connect
from studies.workers.reaper import of_session

connect(None, 1, Cargo())
import ray
ray.get(ray.remote(lambda: 0).remote())  # by now a worker is there, too
print(os.getpid(), *of_session(os.getpid()), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_driver_leaves_no_process() -> None:
    done = subprocess.run([sys.executable, "-c", _KILLED], stdout=subprocess.PIPE, text=True)
    driver, *others = map(int, done.stdout.split())
    assert len(others) >= 5  # GCS, raylet, two agents, a worker
    wait_until(lambda: not any(of_session(driver)), 30)
    assert not list(of_session(driver))
    assert not [other for other in others if name_of(other)]
