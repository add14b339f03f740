"""Failures of the environment: they cost time, never a study."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from studies import search
from studies.records.score_log import ScoreLog
from studies.work.evaluator import Evaluator
from studies.work.task import ChunkResult, Failure, Task
from studies.workers.executors import DeviceError, LocalExecutor, run_task
from tests.studies.toy import TOY, Brightness, Counting, Smoothness, ToyModel, toy_settings
from tuner.schedule import Schedule, Stage

STAGED = Schedule(stages=(Stage(scale=0.5, sigmas=(1.0, 0.5, 0.0)), Stage(sigmas=(0.7, 0.3, 0.0))))


def task_of(prompts: int) -> Task:
    return Task(
        STAGED, tuple(f"{n} foxes" for n in range(prompts)), tuple(range(prompts)), TOY.size, keep_images=True
    )


class SmallMemory(ToyModel):
    """Has room for so many images at once."""

    def __init__(self, room: int, error: Exception):
        super().__init__()
        self._room, self._error = room, error

    def velocity(self, x_BCHW: torch.Tensor, *rest: Any) -> torch.Tensor:
        if len(x_BCHW) > self._room:
            raise self._error
        return super().velocity(x_BCHW, *rest)


def evaluator(model: ToyModel) -> Evaluator:
    return Evaluator(model, [Brightness(), Smoothness()])


@given(prompts=st.integers(1, 9), room=st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_what_does_not_fit_is_drawn_in_parts_that_give_the_same_bits(prompts: int, room: int) -> None:
    whole = evaluator(ToyModel()).evaluate(task_of(prompts))
    parts = evaluator(SmallMemory(room, torch.OutOfMemoryError("CUDA out of memory."))).evaluate(task_of(prompts))
    assert isinstance(whole, ChunkResult)
    assert isinstance(parts, ChunkResult)
    assert parts.scores == whole.scores
    assert parts.images == whole.images
    assert parts.kept_stages == 0


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA"), MemoryError("host"), RuntimeError("DefaultCPUAllocator: no memory")]
)
def test_an_image_that_does_not_fit_fails_for_now(error: Exception) -> None:
    outcome = evaluator(SmallMemory(0, error)).evaluate(task_of(3))
    assert isinstance(outcome, Failure)
    assert outcome.transient
    assert "--offload" in outcome.reason


class Failing:
    """Stands in for an evaluator; raises."""

    def __init__(self, error: BaseException):
        self._error = error

    def evaluate(self, task: Task) -> ChunkResult | Failure:
        raise self._error


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: an illegal memory access was encountered",
        "CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR",
        "NCCL error in: ProcessGroupNCCL.cpp",
    ],
)
def test_a_lost_device_ends_the_process_and_fails_no_task(message: str) -> None:
    with pytest.raises(DeviceError, match=message[:10]):
        run_task(Failing(RuntimeError(message)), task_of(1))
    executor = LocalExecutor(lambda: Failing(RuntimeError(message)))  # type: ignore[arg-type, return-value]
    executor.submit(task_of(1))
    with pytest.raises(RuntimeError, match="--resume"):
        executor.next()


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError("the disk"), SystemExit(0)])
def test_whatever_else_is_raised_fails_the_task_for_now(error: BaseException) -> None:
    outcome = run_task(Failing(error), task_of(1))
    assert isinstance(outcome, Failure)
    assert outcome.transient


def test_a_long_error_is_cut() -> None:
    outcome = run_task(Failing(ValueError("x" * 10**6)), task_of(1))
    assert isinstance(outcome, Failure)
    assert len(outcome.reason) < 3000


@pytest.mark.parametrize("transient", [True, False])
def test_a_reopened_log_forgets_transient_failures_alone(tmp_path: Path, transient: bool) -> None:
    log = functools.partial(ScoreLog, tmp_path / "scores.jsonl", "weights", {"clip": "clip"}, {})
    first = log()
    first.put(task_of(2), Failure("why", transient), 1.0, 1.0, {})
    assert first.get(task_of(2)) == Failure("why", transient)
    assert log().get(task_of(2)) == (None if transient else Failure("why"))
    assert log().tflops == 1.0  # it was spent all the same


class OnceFailing(Counting):
    """Fails the first tasks as a full card does."""

    def __init__(self, failures: int):
        super().__init__()
        self._left = failures

    def next(self) -> tuple[Task, ChunkResult | Failure]:
        task, outcome = super().next()
        if self._left:
            self._left -= 1
            return task, Failure("one image does not fit into memory", transient=True)
        return task, outcome


def test_a_baseline_that_did_not_fit_is_drawn_again_by_a_resumed_study(tmp_path: Path) -> None:
    healthy = search(toy_settings(tmp_path / "healthy"), executor=Counting())
    with pytest.raises(RuntimeError, match="does not fit"):
        search(toy_settings(tmp_path / "full"), executor=OnceFailing(1))
    resumed = search(toy_settings(tmp_path / "full"), resume=True, executor=Counting())
    assert resumed.front == healthy.front
    assert resumed.pick == healthy.pick


def test_an_objective_that_exits_does_not_end_the_search_with_success(tmp_path: Path) -> None:
    class Exiting(Brightness):
        def score(self, images: Any, prompts: Any) -> list[float]:
            sys.exit(0)

    executor = LocalExecutor(lambda: Evaluator(ToyModel(), [Exiting(), Smoothness()]))
    with pytest.raises(RuntimeError, match="SystemExit"):
        search(toy_settings(tmp_path), executor=executor)
