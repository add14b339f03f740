from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest

from studies import SearchSettings, list_studies, open_study, search
from studies.plan.identity import fingerprint
from studies.plan.plan import make_plan
from studies.records.optuna_record import TrialRecord
from studies.records.score_log import ScoreLog
from studies.work.task import ChunkResult, Failure, Task
from tests.studies.test_search import comparable
from tests.studies.toy import TOY, Counting, recorded, toy_settings
from tuner.errors import UserError
from tuner.models import blueprint

SPECS = {"clip": "clip:tiny", "image_reward": "image_reward"}
TASK = Task(TOY.plain(3), ("a fox", "a cat"), (5, 6), (32, 32))
RESULT = ChunkResult({"clip": [1.5, 2.5], "image_reward": [-1.0, 0.25]})


def test_scores_come_back_from_the_disk(tmp_path: Path) -> None:
    log = ScoreLog(tmp_path / "scores.jsonl", "weights", SPECS, {})
    assert log.get(TASK) is None
    log.put(TASK, RESULT, tflops=2.0, elapsed_s=3.5, reused={"prefixes": 0.5})
    again = ScoreLog(tmp_path / "scores.jsonl", "weights", SPECS, {})
    for known in (log, again):
        found = known.get(TASK)
        assert isinstance(found, ChunkResult)
        assert found.scores == RESULT.scores
        assert (known.tflops, known.elapsed_s) == (2.0, 3.5)
        assert known.reused == {"prefixes": 0.5, "scores": 0.0}
    one = Task(TASK.schedule, ("a cat",), (6,), (32, 32))
    assert again.get(one) == ChunkResult({"clip": [2.5], "image_reward": [0.25]})


@pytest.mark.parametrize(
    "other",
    [
        Task(TOY.plain(4), ("a fox", "a cat"), (5, 6), (32, 32)),
        Task(TOY.plain(3), ("a fox", "a dog"), (5, 6), (32, 32)),
        Task(TOY.plain(3), ("a fox", "a cat"), (5, 7), (32, 32)),
        Task(TOY.plain(3), ("a fox", "a cat"), (5, 6), (32, 64)),
    ],
)
def test_a_score_belongs_to_all_that_made_it(tmp_path: Path, other: Task) -> None:
    log = ScoreLog(tmp_path / "scores.jsonl", "weights", SPECS, {})
    log.put(TASK, RESULT, 2.0, 3.5, {})
    assert log.get(other) is None
    assert ScoreLog(tmp_path / "scores.jsonl", "other weights", SPECS, {}).get(TASK) is None
    assert ScoreLog(tmp_path / "scores.jsonl", "weights", SPECS | {"clip": "clip:big"}, {}).get(TASK) is None


def test_a_failure_is_remembered(tmp_path: Path) -> None:
    ScoreLog(tmp_path / "scores.jsonl", "weights", SPECS, {}).put(TASK, Failure("too hot"), 2.0, 3.5, {})
    assert ScoreLog(tmp_path / "scores.jsonl", "weights", SPECS, {}).get(TASK) == Failure("too hot")


def test_local_weights_are_told_apart_by_what_they_are_and_not_by_where_they_lie(tmp_path: Path) -> None:
    def of_folder(name: str, weights: bytes) -> str:
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "weights.bin").write_bytes(weights)
        return fingerprint(dataclasses.replace(TOY, source=str(tmp_path / name)))

    assert of_folder("here", b"one") == of_folder("there", b"one") != of_folder("here", b"two")


def test_models_of_one_configuration_are_told_apart_by_their_name_on_the_hub() -> None:
    assert fingerprint(TOY) != fingerprint(dataclasses.replace(TOY, source="someone/tuned"))


def test_studies_are_listed_and_found_by_name(tmp_path: Path) -> None:
    assert list_studies(str(tmp_path / "nothing")) == []
    with pytest.raises(UserError, match="There are no studies"):
        open_study(str(tmp_path), "toy-3x")
    search(toy_settings(tmp_path, trials=0), executor=Counting())
    with pytest.raises(KeyboardInterrupt):
        search(toy_settings(tmp_path, study="half"), executor=Counting(interrupt_after=2))
    assert [(study.name, study.state) for study in list_studies(str(tmp_path))] == [
        ("half", "unfinished"),
        ("toy-3x", "finished"),
    ]
    assert open_study(str(tmp_path), "toy-3x").result().study == "toy-3x"
    with pytest.raises(UserError, match="Did you mean 'toy-3x'"):
        open_study(str(tmp_path), "toy-4x")
    with pytest.raises(UserError, match=r"'half'.*not finished.*--resume"):
        open_study(str(tmp_path), "half").result()


def test_two_processes_cannot_run_one_study(tmp_path: Path) -> None:
    settings = toy_settings(tmp_path, trials=0)
    search(settings, executor=Counting())
    with open_study(settings.out, settings.name).lock(), pytest.raises(UserError, match="another process"):
        search(settings, executor=Counting(), resume=True)


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_optuna_can_read_the_study(tmp_path: Path, kind: str) -> None:
    url = None if kind == "journal" else f"sqlite:///{tmp_path}/optuna.db"
    settings = toy_settings(tmp_path, trials=3, storage=url)
    result = search(settings, executor=Counting())
    folder = open_study(settings.out, settings.name)
    backend = optuna.storages.journal.JournalFileBackend(str(folder.journal))
    study = optuna.load_study(
        study_name="toy-3x", storage=url if url is not None else optuna.storages.JournalStorage(backend)
    )
    assert len(recorded(result)) < result.trials  # references that only waited are left out
    for trial, candidate in zip(study.trials, recorded(result), strict=True):
        baseline = result.baseline.scores  # of a stopped trial, the baseline plus the difference so far is told
        means = [baseline[name].mean + candidate.scores[name].delta for name in ("clip", "image_reward")]
        assert trial.values == pytest.approx([*means, candidate.tflops])
        assert trial.user_attrs["schedule"] == candidate.schedule.model_dump(mode="json")
        assert trial.duration is not None
    assert study.metric_names == ["clip", "image_reward", "TFLOPs"]
    proposed = [trial for trial in study.trials if trial.user_attrs["label"] == "search"]
    assert len(proposed) == 3
    assert all(trial.params for trial in proposed)


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_a_record_that_a_resumed_study_disagrees_with_is_written_anew(tmp_path: Path, kind: str) -> None:
    """A task that failed for want of memory succeeds in the second sitting, so later trials are others."""

    class FullOnce(Counting):
        def next(self) -> tuple[Task, ChunkResult | Failure]:
            task, outcome = super().next()
            return task, Failure("no memory", transient=True) if len(self.ran) == 5 else outcome

    def settings_in(name: str) -> SearchSettings:
        url = None if kind == "journal" else f"sqlite:///{tmp_path}/{name}.db"
        return toy_settings(tmp_path / name, storage=url)

    def recorded_in(name: str) -> list[Any]:
        journal = optuna.storages.journal.JournalFileBackend(f"{settings_in(name).out}/toy-3x/journal.log")
        storage = settings_in(name).storage or optuna.storages.JournalStorage(journal)
        trials = optuna.load_study(study_name="toy-3x", storage=storage).trials
        return [(trial.state, trial.values, trial.params, trial.user_attrs) for trial in trials]

    healthy = search(settings_in("healthy"), executor=Counting())
    search(settings_in("full"), executor=FullOnce())
    before = recorded_in("full")
    assert optuna.trial.TrialState.FAIL in {state for state, *_ in before}
    resumed = search(settings_in("full"), executor=Counting(), resume=True)
    assert resumed.front == healthy.front
    assert recorded_in("full") == recorded_in("healthy") != before


def test_the_record_decides_nothing(tmp_path: Path) -> None:
    """A study whose journal is lost is the same study, and its journal is written again."""
    settings = toy_settings(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        search(settings, executor=Counting(interrupt_after=25))
    folder = open_study(settings.out, settings.name)
    folder.journal.unlink()
    resumed = search(settings, executor=Counting(), resume=True)
    whole = search(toy_settings(tmp_path / "whole"), executor=Counting())
    assert comparable(resumed) == comparable(whole)
    assert TrialRecord(make_plan(settings), folder, None).earlier == len(recorded(whole))


def test_a_storage_with_another_study_of_that_name_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/optuna.db"
    search(toy_settings(tmp_path / "a", trials=0, storage=url), executor=Counting())
    with pytest.raises(UserError, match=r"already has a study 'toy-3x'.*--study"):
        search(toy_settings(tmp_path / "b", trials=0, storage=url), executor=Counting())


def test_a_storage_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be opened"):
        search(toy_settings(tmp_path, storage="nosuchdatabase://x"), executor=Counting())


DRIVER = """
import sys
import studies.plan.plan
from studies import search
from tests.studies.toy import Counting, find_blueprint, toy_settings
studies.plan.plan.blueprint = find_blueprint
search(toy_settings(sys.argv[1]), executor=Counting())
"""


def test_a_killed_driver_loses_nothing(tmp_path: Path) -> None:
    """SIGKILL, which no handler sees, at a random moment after the first evaluations."""
    process = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path)])
    scores = tmp_path / "toy-3x" / "scores.jsonl"
    while process.poll() is None and not (scores.exists() and scores.read_bytes().count(b"\n") >= 12):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    finished = scores.read_bytes().count(b"\n")
    executor = Counting()
    resumed = search(toy_settings(tmp_path), executor=executor, resume=True)
    assert scores.read_bytes().count(b"\n") == finished + len(executor.ran)
    uninterrupted = Counting()
    assert comparable(resumed) == comparable(search(toy_settings(tmp_path / "whole"), executor=uninterrupted))
    assert len(uninterrupted.ran) == finished + len(executor.ran)


def test_a_plan_for_a_flux_model_refers_to_the_published_presets(tmp_path: Path) -> None:
    settings = toy_settings(tmp_path, model="tiny", size=None)
    plan = make_plan(settings)
    labels = [reference.label for reference in plan.references]
    assert labels[:2] == ["plain:2", "plain:4"]  # the cheapest first
    assert {"plain:8", "plain:16"} <= set(labels)
    names = {label.removesuffix("-rescaled") for label in labels}
    assert {"bottleneck-flux-2x", "bottleneck-flux-3x", "bottleneck-flux-5stage"} <= names
    assert plan.objectives == ("clip:tiny", "image_reward:tiny")
    assert blueprint("tiny").size == plan.size
    given = make_plan(settings.model_copy(update={"objectives": ("clip:ViT-B-32/openai", "image_reward")}))
    assert given.objectives == ("clip:ViT-B-32/openai", "image_reward:tiny")
