"""Objectives that compare with the baseline's images, and what objectives tell the user, within a study."""

from __future__ import annotations

import math
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from objectives import Item
from objectives.base import CutPromptWarning, frames_of
from objectives.psnr import CEILING, Psnr
from studies import SearchSettings, search
from studies.plan.plan import make_plan
from studies.work import baseline_images
from studies.work.baseline_images import LIMIT, BaselineImages
from studies.work.evaluator import Evaluator
from studies.work.task import ChunkResult, Failure, Redrawn, Task
from studies.workers.executors import LocalExecutor
from tests.studies.toy import FACTOR, TOY, Brightness, CountingModel, ToyModel, toy_settings
from tuner.errors import UserError
from tuner.flops import tflops_per_call


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


def noise(mode: str, seed: int, size: tuple[int, int] = (10, 10)) -> Image.Image:
    """An image that no compression shrinks."""
    channels = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, channels), dtype=np.uint8)
    return Image.fromarray(pixels.squeeze(), mode)


def same(one: Item, other: Item) -> bool:
    both = list(zip(frames_of(one), frames_of(other), strict=True))
    return isinstance(one, list) == isinstance(other, list) and all(
        (a.mode, a.size, a.tobytes()) == (b.mode, b.size, b.tobytes()) for a, b in both
    )


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_kept_images_and_videos_are_what_was_drawn(mode: str) -> None:
    kept = BaselineImages()
    drawn: dict[int, list[Item]] = {
        1: [noise(mode, 1), noise(mode, 2)],
        2: [[noise(mode, seed) for seed in range(3)], [noise(mode, 9)]],
    }
    for seed, items in drawn.items():
        assert kept.of(task(1, (seed,))) is None
        kept.keep(task(1, (seed,)), items)
    for seed in (2, 1, 2):
        found = kept.of(task(9, (seed,)))
        assert found is not None
        assert all(map(same, found, drawn[seed]))


def test_the_limit_counts_compressed_frames() -> None:
    video: Item = [Image.new("RGB", (100, 100), (seed, 0, 0)) for seed in range(10)]
    kept = BaselineImages(limit_bytes=30_000)  # as many bytes as one frame has
    for seed in range(2):
        kept.keep(task(1, (seed,)), [video])
    for seed in range(2):
        found = kept.of(task(1, (seed,)))
        assert found is not None
        assert same(found[0], video)
    assert LIMIT > 32 * 129 * 720 * 1280 * 3 / 2  # 32 videos of HunyuanVideo at half their size


def test_what_is_kept_stays_and_the_limit_holds() -> None:
    kept = BaselineImages(limit_bytes=1000)  # two images of 10 x 10 pixels as PNG
    for seed in range(4):
        kept.keep(task(1, (seed,)), [noise("RGB", seed)])
    assert [kept.of(task(1, (seed,))) is not None for seed in range(4)] == [True, True, False, False]


def test_a_tenth_of_the_disk_stays_free(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(".")
    for free, expected in ((1100, True), (1000, False)):
        disk = usage._replace(total=5000, free=free)
        monkeypatch.setattr(baseline_images.shutil, "disk_usage", lambda _, disk=disk: disk)
        kept = BaselineImages()
        kept.keep(task(1), [noise("RGB", 1, (10, 16))])  # 500 to 600 bytes
        assert (kept.of(task(1)) is not None) is expected


def test_a_disk_that_fills_up_costs_the_images_of_one_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, whole = BaselineImages(), BaselineImages._write
    kept.keep(task(1, (1,)), [noise("RGB", 1)])
    with monkeypatch.context() as full:

        def write(self: BaselineImages, frame: bytes) -> Any:
            whole(self, frame[:5])
            raise OSError(28, "No space left on device")

        full.setattr(BaselineImages, "_write", write)
        kept.keep(task(1, (2,)), [noise("RGB", 2)])
    kept.keep(task(1, (3,)), [noise("RGB", 3)])
    first, second, third = (kept.of(task(1, (seed,))) for seed in (1, 2, 3))
    assert second is None
    for found, seed in ((first, 1), (third, 3)):
        assert found is not None
        assert same(found[0], noise("RGB", seed))


def test_nothing_is_kept_where_no_folder_is_for_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    kept = BaselineImages()
    kept.keep(task(1), [noise("RGB", 1)])
    assert kept.of(task(1)) is None


def test_a_worker_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    kept = BaselineImages()
    kept.keep(task(1), [noise("RGB", 1)])
    assert kept.of(task(1))
    assert list(tmp_path.iterdir()) == []


def spent(tmp_path: Path, limit: int, monkeypatch: pytest.MonkeyPatch) -> tuple[float, int]:
    """The TFLOPs that a study counted per call of one image, and the calls that it made, image by image."""
    monkeypatch.setattr(BaselineImages.__init__, "__defaults__", (limit,))
    made: list[int] = []

    class Model(ToyModel):
        def velocity(self, x_BCHW: Any, sigma: float, conditioning: Any) -> Any:
            made.append(len(x_BCHW) * x_BCHW.shape[-1] * x_BCHW.shape[-2])
            return super().velocity(x_BCHW, sigma, conditioning)

    executor = LocalExecutor(lambda: Evaluator(Model(), [Psnr(), Brightness()]))
    settings = toy_settings(tmp_path / str(limit), trials=3, objectives=("psnr", "clip"))
    result = search(settings, executor=executor)
    pixels = TOY.size[0] * TOY.size[1] // FACTOR**2
    return result.tflops_spent / tflops_per_call(TOY, TOY.size) * pixels, sum(made)


@pytest.mark.parametrize("limit", [LIMIT, 0])
def test_every_call_that_draws_the_baseline_is_counted(
    limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, made = spent(tmp_path, limit, monkeypatch)
    assert counted == pytest.approx(made)


def test_a_baseline_that_is_kept_is_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert spent(tmp_path, LIMIT, monkeypatch)[1] < 0.7 * spent(tmp_path, 0, monkeypatch)[1]


def test_what_a_task_redrew_is_reported_once_even_if_it_failed() -> None:
    class Infinite(Brightness):
        broken = True

        def score(self, images: Any, prompts: Any) -> list[float]:
            return [math.inf if self.broken else 1.0 for _ in images]

    objective = Infinite()
    evaluator = Evaluator(ToyModel(), [Psnr(), objective])
    assert isinstance(evaluator.evaluate(task(2)), Failure)
    objective.broken = False
    outcomes = [evaluator.evaluate(task(steps)) for steps in (3, 4)]
    assert [one.redrawn for one in outcomes if isinstance(one, ChunkResult)] == [(Redrawn(2, 0, (0,)),), ()]


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
