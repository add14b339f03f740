from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageChops
from torch.utils.flop_counter import FlopCounterMode

import tuner
from objectives.base import Objective
from studies.work.evaluator import Evaluator
from studies.work.task import ChunkResult, Failure, Task
from studies.workers.executors import LocalExecutor
from tests.studies.toy import Brightness, Smoothness, ToyModel, load_toy
from tuner import presets
from tuner.flops import price
from tuner.models import wrap
from tuner.schedule import Schedule, Stage

SCHEDULE = Schedule(stages=(Stage(scale=0.5, steps=4), Stage(sigmas=(0.7, 0.3, 0.0))))
PROMPTS = ("a red fox", "a blue circle above a red square", "fox", "a red circle", "a blue square")


def task(prompts: tuple[str, ...] = PROMPTS, first_seed: int = 7, **changes: Any) -> Task:
    values: dict[str, Any] = {"schedule": SCHEDULE, "size": (32, 32), "keep_images": True} | changes
    return Task(prompts=prompts, seeds=tuple(range(first_seed, first_seed + len(prompts))), **values)


def finished(outcome: ChunkResult | Failure) -> ChunkResult:
    assert isinstance(outcome, ChunkResult), outcome
    return outcome


def test_each_prompt_gets_one_score_per_objective() -> None:
    result = finished(load_toy().evaluate(task()))
    assert set(result.scores) == {"clip", "image_reward"}
    assert all(len(scores) == len(PROMPTS) for scores in result.scores.values())
    assert set(result.seconds) == {"sampling", "decoding", "scoring"}
    images = [Image.open(io.BytesIO(image)) for image in result.images]
    assert list(result.scores["clip"]) == Brightness().score(images, PROMPTS)


def test_images_come_back_only_if_asked_for() -> None:
    assert finished(load_toy().evaluate(task(keep_images=False))).images == ()


def test_a_chunk_of_prompts_is_encoded_once() -> None:
    model = ToyModel()
    evaluator = Evaluator(model, [Brightness()])
    for schedule in (SCHEDULE, model.blueprint.plain(3), model.blueprint.plain(2)):
        evaluator.evaluate(task(schedule=schedule))
    assert model.encoded == [PROMPTS]


class Infinite(ToyModel):
    def velocity(self, *args: Any) -> torch.Tensor:
        return super().velocity(*args) * float("inf")


class Grey(ToyModel):
    def decode(self, x_BCHW: torch.Tensor) -> list[Image.Image]:
        return [Image.new("RGB", (32, 32), "grey") for _ in x_BCHW]


class NotANumber(Smoothness):
    def score(self, images: Any, prompts: Any) -> list[float]:
        return [0.0] * (len(prompts) - 1) + [float("nan")]


@pytest.mark.parametrize(
    ("model", "objective", "reason"),
    [
        (Infinite(), Brightness(), "5 of 5 images are degenerate: 5 not finite, the first for 'a red fox'"),
        (Grey(), Brightness(), "5 of 5 images are degenerate: 5 all one colour"),
        (ToyModel(), NotANumber(), "'image_reward' gave a score that is not finite"),
    ],
)
def test_what_cannot_be_scored_fails_with_the_reason(model: ToyModel, objective: Objective, reason: str) -> None:
    outcome = Evaluator(model, [objective]).evaluate(task())
    assert isinstance(outcome, Failure)
    assert reason in outcome.reason


def test_a_real_run_costs_what_its_price_says(flux_pipe: Any) -> None:
    model = wrap(flux_pipe)
    evaluator = Evaluator(model, [Brightness()])
    # The text encoders run once and are not part of the price.
    evaluator.evaluate(task(schedule=model.blueprint.plain(1, (32, 32))))
    decoded = FlopCounterMode(display=False)
    with decoded:
        for _ in PROMPTS:
            model.decode(model.noise((32, 32), [0]))
    counted = FlopCounterMode(display=False)
    with counted:
        finished(evaluator.evaluate(task()))
    tflops = (counted.get_total_flops() - decoded.get_total_flops()) / 1e12
    assert tflops == pytest.approx(len(PROMPTS) * price(SCHEDULE, model.blueprint, (32, 32)).tflops, rel=1e-3)


def pixels(images: tuple[bytes, ...]) -> list[bytes]:
    return [Image.open(io.BytesIO(image)).tobytes() for image in images]


def test_images_do_not_depend_on_the_batch_they_are_drawn_in(flux_pipe: Any) -> None:
    evaluator = Evaluator(wrap(flux_pipe), [Brightness()])
    together = pixels(finished(evaluator.evaluate(task())).images)
    alone = [
        pixel
        for index, prompt in enumerate(PROMPTS)
        for pixel in pixels(finished(evaluator.evaluate(task((prompt,), 7 + index))).images)
    ]
    assert together == alone
    assert len(set(together)) == len(together)


def test_generate_draws_what_a_study_scored_in_a_new_process_too(flux_pipe: Any, tmp_path: Path) -> None:
    """With other batches and another number of threads."""
    flux_pipe.save_pretrained(tmp_path / "pipe")
    executor = LocalExecutor(lambda: Evaluator(wrap(flux_pipe), [Brightness()]))
    executor.submit(task())
    _, outcome = executor.next()
    scored = pixels(finished(outcome).images)
    again = tuner.generate(flux_pipe, PROMPTS[1], SCHEDULE, seed=8, height=32, width=32).images[0]
    assert again.tobytes() == scored[1]

    preset = presets.Preset(
        name="p", model=str(tmp_path / "pipe"), source="", height=32, width=32, schedule=SCHEDULE
    )
    presets.save(preset, tmp_path / "preset.yaml")
    script = f"""
import tuner
from diffusers import FluxPipeline
pipe = FluxPipeline.from_pretrained({str(tmp_path / "pipe")!r})
images = tuner.generate(pipe, {PROMPTS[:3]!r}, preset={str(tmp_path / "preset.yaml")!r}, seed=7).images
for index, image in enumerate(images):
    image.save({str(tmp_path)!r} + f"/{{index}}.png")
"""
    threads = os.environ | {"OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, env=threads)
    for index in range(3):
        new = Image.open(tmp_path / f"{index}.png")
        old = Image.frombytes("RGB", (32, 32), scored[index])
        assert ImageChops.difference(new, old).getbbox() is None
