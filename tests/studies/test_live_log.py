"""What MLflow has of a search while it runs, after Ctrl-C, and after a server was away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import studies.engine.live_log
import studies.plan.plan
from studies import StudyFolder, log_study, search
from studies.engine.live_log import LiveLog
from studies.engine.progress import Progress
from studies.report.mlflow_runs import EXPERIMENT, local_uri
from tests.studies.toy import Counting, find_blueprint, toy_settings


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies.plan.plan, "blueprint", find_blueprint)
    monkeypatch.setattr(studies.engine.live_log, "_PAUSE_S", 0.01)


class Stepwise(Counting):
    """Waits before the last tasks, so that what was logged by then can be looked at."""

    def __init__(self, after: int, look: Callable[[], None], **options: Any):
        super().__init__(**options)
        self._after, self._look = after, look

    def next(self) -> Any:
        if len(self.ran) == self._after:
            self._look()
        return super().next()


def runs(uri: str) -> dict[str, Any]:
    """The runs by trial; the parent's is ``parent``."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    found = [] if experiment is None else client.search_runs([experiment.experiment_id])
    by_trial = {run.data.tags.get("tuner.trial", "parent"): run for run in found}
    assert len(by_trial) == len(found)
    return by_trial


def wait_for(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_runs_appear_while_the_search_runs_and_a_resumed_one_continues_them(tmp_path: Path) -> None:
    settings = toy_settings(tmp_path)
    study = StudyFolder(tmp_path / settings.name)
    seen: list[dict[str, Any]] = []

    def look() -> None:
        wait_for(lambda: "1" in (found := runs(local_uri(study))) and found["1"].info.status == "FINISHED")
        seen.append(runs(local_uri(study)))

    with pytest.raises(KeyboardInterrupt), LiveLog(study, None) as log:
        search(settings, on_progress=log.show, executor=Stepwise(14, look, interrupt_after=15))
    live = seen[0]
    parent = live["parent"].info.run_id
    assert live["parent"].info.status == "RUNNING"
    assert live["parent"].data.params["budget"] == "3x"
    assert live["parent"].data.metrics["trials"] >= 1
    assert live["parent"].data.metrics["tflops_spent"] > 0
    for number in ("0", "1"):
        assert live[number].data.tags["mlflow.parentRunId"] == parent
        assert {"clip", "image_reward", "tflops", "nfe"} <= set(live[number].data.metrics)
        assert int(live[number].data.params["stage1.steps"]) >= 1

    stopped = runs(local_uri(study))
    assert stopped["parent"].info.status == "KILLED"

    with LiveLog(study, None) as log:
        search(settings, on_progress=log.show, resume=True, executor=Stepwise(0, lambda: time.sleep(1)))
        wait_for(lambda: runs(local_uri(study))["parent"].info.status == "RUNNING")
    finished = StudyFolder(study.path)
    assert log_study(finished) == parent
    final, result = runs(local_uri(study)), finished.result()
    assert final["parent"].info.run_id == parent
    assert final["parent"].info.status == "FINISHED"
    assert final["parent"].data.metrics["trials"] == result.trials
    assert set(final) == {
        "parent",
        "baseline",
        *(str(candidate.trial) for candidate in (*result.front, *result.references, result.pick)),
    }
    assert log_study(finished) != parent
    assert runs(local_uri(study)).keys() == final.keys()


def test_a_server_that_is_away_is_told_later_what_it_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = toy_settings(tmp_path)
    study = StudyFolder(tmp_path / settings.name)
    away, tried = threading.Event(), threading.Event()
    away.set()
    connect = studies.engine.live_log.StudyRuns

    def sometimes(*arguments: Any) -> Any:
        if away.is_set():
            tried.set()
            raise ConnectionError("the server is away")
        return connect(*arguments)

    monkeypatch.setattr(studies.engine.live_log, "StudyRuns", sometimes)
    with LiveLog(study, None) as log:
        result = search(settings, on_progress=log.show, executor=Counting())
        assert tried.wait(60)
        away.clear()
        wait_for(lambda: len(runs(local_uri(study))) > 1 + settings.trials)
    assert result.trials >= settings.trials


def test_a_call_without_an_answer_does_not_hold_up_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = toy_settings(tmp_path)
    answer, asked = threading.Event(), threading.Event()

    def hang(*arguments: Any) -> Any:
        asked.set()
        answer.wait()
        raise ConnectionError("no answer")

    monkeypatch.setattr(studies.engine.live_log, "StudyRuns", hang)
    monkeypatch.setattr(studies.engine.live_log, "_LAST_CALL_S", 0.01)
    progress = Progress("starting", 0, 8, {}, 0.0, 0.0, None)
    with LiveLog(StudyFolder(tmp_path / settings.name), "http://127.0.0.1:9") as log:
        for _ in range(1000):
            log.show(progress)
        assert asked.wait(60)
    assert not answer.is_set()
    answer.set()
