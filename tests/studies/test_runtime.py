"""Scores are comparable only with scores of the same type of device and precision."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from studies import search
from studies.records.score_log import EarlierScores, ScoreLog
from studies.records.study_folder import open_study
from studies.work.evaluator import Evaluator
from studies.work.task import ChunkResult, Task
from tests.studies.toy import TOY, Counting, toy_settings
from tuner.errors import UserError
from tuner.models import ModelOptions, blueprint

SPECS = {"clip": "clip"}
TASK = Task(TOY.plain(3), ("a fox",), (5,), (32, 32))
OTHER = Task(TOY.plain(2), ("a fox",), (5,), (32, 32))


def made_on(runtime: str) -> ChunkResult:
    return ChunkResult({"clip": [1.0]}, runtime=runtime)


def test_a_log_takes_scores_of_one_runtime_alone(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    ScoreLog(path, "w", SPECS, {}).put(TASK, made_on("cpu float32"), 1.0, 1.0, {})
    before = path.read_bytes()
    again = ScoreLog(path, "w", SPECS, {})
    with pytest.raises(UserError, match=r"computes on cuda bfloat16, but the scores so far are from cpu float32"):
        again.put(OTHER, made_on("cuda bfloat16"), 1.0, 1.0, {})
    assert path.read_bytes() == before
    again.put(OTHER, made_on("cpu float32"), 1.0, 1.0, {})
    assert again.get(OTHER) == made_on("cpu float32")


def test_scores_of_another_runtime_are_not_taken_from_other_studies(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    ScoreLog(path, "w", SPECS, {}).put(TASK, made_on("cpu float32"), 1.0, 1.0, {})
    assert EarlierScores([path], "w", SPECS, {}, "cpu float32").get(TASK) == made_on("cpu float32")
    for other in ("cuda float32", "cpu bfloat16"):
        assert EarlierScores([path], "w", SPECS, {}, other).get(TASK) is None


class OnGpu(Counting):
    """Claims that its workers compute on a GPU."""

    def next(self) -> tuple[Task, object]:
        task, outcome = super().next()
        return task, replace(outcome, runtime="cuda bfloat16") if isinstance(outcome, ChunkResult) else outcome


def test_a_study_that_began_on_a_cpu_goes_on_there(tmp_path: Path) -> None:
    settings = toy_settings(tmp_path, trials=2)
    with pytest.raises(KeyboardInterrupt):
        search(settings, executor=Counting(interrupt_after=2))
    with pytest.raises(UserError, match="computes on cuda bfloat16"):
        search(settings, executor=OnGpu(), resume=True)
    assert search(settings, executor=Counting(), resume=True).trials == 5


def test_a_study_records_what_its_workers_computed_on(tmp_path: Path) -> None:
    settings = toy_settings(tmp_path, trials=0)
    search(settings, executor=OnGpu())
    folder = open_study(settings.out, settings.name)
    assert json.loads((folder.path / "settings.json").read_text())["device"] == "cpu"  # this machine's, a guess
    assert (folder.device, folder.dtype) == ("cuda", "bfloat16")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_worker_says_what_it_computes_on(dtype: str) -> None:
    options = ModelOptions.model_validate({"dtype": dtype})
    evaluator = Evaluator.load("tiny", ["image_reward:tiny"], "cpu", options)
    model = blueprint("tiny")
    task = Task(model.plain(1), ("a red circle on a blue background",), (1,), model.size)
    outcome = evaluator.evaluate(task)
    assert isinstance(outcome, ChunkResult)
    assert outcome.runtime == options.runtime("cpu") == f"cpu {dtype}"
