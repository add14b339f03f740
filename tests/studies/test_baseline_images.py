"""Objectives that compare with the baseline's images, and what objectives tell the user, within a study."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from objectives.base import CutPromptWarning
from objectives.psnr import CEILING, Psnr
from studies import SearchSettings, search
from studies.plan.plan import make_plan
from studies.work.baseline_images import BaselineImages
from studies.work.evaluator import Evaluator
from studies.work.task import ChunkResult, Failure, Task
from studies.workers.executors import LocalExecutor
from tests.studies.toy import TOY, Brightness, CountingModel, ToyModel, toy_settings
from tuner.errors import UserError


def task(steps: int, seeds: tuple[int, ...] = (1, 2)) -> Task:
    return Task(TOY.plain(steps), tuple(f"prompt {seed}" for seed in seeds), seeds, TOY.size)


def scores(outcome: ChunkResult | Failure) -> Sequence[float]:
    assert isinstance(outcome, ChunkResult), outcome
    assert set(outcome.seconds) == {"sampling", "decoding", "references", "scoring"}
    return outcome.scores["psnr"]


def test_images_are_compared_with_the_baselines_for_the_same_noise() -> None:
    model = CountingModel()
    evaluator = Evaluator(model, [Psnr()])
    few, more = scores(evaluator.evaluate(task(2))), scores(evaluator.evaluate(task(10)))
    assert all(a < b < CEILING for a, b in zip(few, more, strict=True))
    # The baseline is drawn once for a chunk, and all three have the call at pure noise in common.
    assert model.calls == 1 + 1 + 9 + TOY.steps - 1
    assert scores(evaluator.evaluate(task(TOY.steps))) == [CEILING, CEILING]


def test_a_baseline_that_is_scored_is_not_drawn_again() -> None:
    model = CountingModel()
    evaluator = Evaluator(model, [Psnr()])
    assert scores(evaluator.evaluate(task(TOY.steps))) == [CEILING, CEILING]
    scores(evaluator.evaluate(task(3)))
    assert model.calls == TOY.steps + 2  # at pure noise it is the baseline's


def test_nothing_is_drawn_for_objectives_that_compare_with_nothing() -> None:
    model = CountingModel()
    Evaluator(model, [Brightness()]).evaluate(task(3))
    assert model.calls == 3


def test_the_latest_baseline_images_are_kept_within_the_limit() -> None:
    drawn: list[tuple[int, ...]] = []

    def draw(some: Task) -> list[Image.Image]:
        drawn.append(some.seeds)
        return [Image.new("RGB", (10, 10)) for _ in some.seeds]

    kept = BaselineImages(draw, limit_bytes=2 * 600)  # two chunks of two images
    for seeds in ((1, 2), (3, 4), (1, 2), (5, 6), (1, 2), (3, 4)):
        assert len(kept.of(task(1, seeds))) == 2
    assert drawn == [(1, 2), (3, 4), (5, 6), (3, 4)]
    assert len(BaselineImages(draw, limit_bytes=1).of(task(1))) == 2  # what is asked for is never dropped


def test_frames_count_against_the_limit() -> None:
    video = [Image.new("RGB", (10, 10)) for _ in range(4)]
    calls: list[Task] = []
    kept = BaselineImages(lambda some: calls.append(some) or [video], limit_bytes=2300)
    for seed in (1, 2, 1):
        kept.of(task(1, (seed,)))
    assert len(calls) == 3


def test_the_models_own_scorers_go_to_objectives_that_have_such() -> None:
    settings = SearchSettings(model="tiny", budget="3x", objectives=("psnr", "clip", "sharpness", "ssim"))
    plan = make_plan(settings)
    assert plan.objectives == ("psnr", "clip:tiny", "sharpness", "ssim")


def test_a_users_function_has_its_direction_in_the_plan() -> None:
    spec = "tests.studies.toy:whiteness"
    plan = make_plan(SearchSettings(model="tiny", budget="3x", objectives=(f"{spec}:minimize", "clip")))
    assert plan.objectives == (f"{spec}:minimize", "clip:tiny")
    assert dict(plan.directions) == {spec: "minimize", "clip": "maximize"}


def test_prompts_that_an_objective_cannot_judge_are_refused_before_anything_is_spent(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red fox\na blue hen\na pale cat\na dark oak")
    settings = SearchSettings(
        model="tiny", budget="3x", objectives=("attributes",), prompts=str(prompts), out=str(tmp_path / "runs")
    )
    with pytest.raises(UserError, match="'attributes' cannot judge a prompt"):
        search(settings)
    assert not (tmp_path / "runs").exists()


class Warning35(Brightness):
    """Warns at every call, as the objectives of several workers do."""

    def score(self, images: Any, prompts: Any) -> list[float]:
        warnings.warn(
            f"reads 35 tokens, and this prompt is longer: {prompts[0]!r}", CutPromptWarning, stacklevel=1
        )
        warnings.warn("something else", FutureWarning, stacklevel=1)
        return super().score(images, prompts)


class Reward(Brightness):
    name = "image_reward"


def test_a_cut_prompt_is_warned_about_once_per_study(tmp_path: Path) -> None:
    executor = LocalExecutor(lambda: Evaluator(ToyModel(), [Warning35(), Reward()]))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        search(toy_settings(tmp_path, trials=2), executor=executor)
    assert len([one for one in caught if issubclass(one.category, CutPromptWarning)]) == 1
    assert len([one for one in caught if issubclass(one.category, FutureWarning)]) > 1


def test_a_score_that_fails_fails_the_task_with_the_reason() -> None:
    class Broken(Brightness):
        def score(self, images: Any, prompts: Any) -> list[float]:
            raise ValueError("objective 'mine' returned 1 scores for 2 prompts.")

    executor = LocalExecutor(lambda: Evaluator(ToyModel(), [Broken()]))
    executor.submit(replace(task(2), keep_images=True))
    _, outcome = executor.next()
    assert isinstance(outcome, Failure)
    assert outcome.reason == "ValueError: objective 'mine' returned 1 scores for 2 prompts."
