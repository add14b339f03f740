from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from studies.work.evaluator import Evaluator
from studies.work.task import ChunkResult, Task
from tests.small_pipelines import small_pipeline
from tuner import generate
from tuner.errors import UserError
from tuner.flops import price, tflops_per_pass
from tuner.models import ModelOptions, blueprint, wrap
from tuner.resample import resize
from tuner.sampling import sample
from tuner.schedule import RESAMPLE_MODES, Schedule, Stage

SCHEDULE = Schedule(stages=(Stage(scale=0.5, steps=2), Stage(steps=2, strength=0.5)))


@pytest.mark.parametrize(
    ("name", "size", "tflops"),
    [
        ("wan2.1-1.3b", (480, 832), 283.0),
        ("wan2.1-14b", (480, 832), 1678.4),
        ("hunyuan-video", (720, 1280), 12068.6),
        ("hunyuan-video", (544, 960), 4285.3),
    ],
)
def test_tflops_per_pass(name: str, size: tuple[int, int], tflops: float) -> None:
    assert tflops_per_pass(blueprint(name), size) == pytest.approx(tflops, rel=1e-3)


def test_the_hunyuan_video_baseline_is_the_papers() -> None:
    # Bottleneck Sampling, Table 2: 605459.49 TFLOPs for 50 steps at 720 x 1280, 129 frames.
    known = blueprint("hunyuan-video")
    assert price(known.baseline(), known).tflops == pytest.approx(605459.49, rel=0.01)


def test_fewer_frames_cost_less() -> None:
    wan = blueprint("wan2.1-1.3b")
    assert tflops_per_pass(wan.with_frames(41), wan.size) < 0.5 * tflops_per_pass(wan, wan.size)


@pytest.mark.parametrize(
    ("name", "frames", "message"),
    [
        ("wan2.1-1.3b", 80, "1 more than a multiple of 4; try 81"),
        ("cogvideox", 53, "1 more than a multiple of 8"),
        ("flux", 9, "makes images"),
    ],
)
def test_numbers_of_frames_that_do_not_fit_are_user_errors(name: str, frames: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        blueprint(name).with_frames(frames)


@pytest.mark.parametrize("mode", RESAMPLE_MODES)
def test_a_video_changes_size_frame_by_frame(mode: Any) -> None:
    x = torch.randn(2, 3, 4, 8, 6, generator=torch.Generator().manual_seed(0))
    resized = resize(x, (12, 10), mode)
    for frame in range(4):
        torch.testing.assert_close(resized[:, :, frame], resize(x[:, :, frame], (12, 10), mode))


def test_wan_walks_the_levels_of_its_own_scheduler() -> None:
    from diffusers import UniPCMultistepScheduler

    wan = blueprint("wan2.1-1.3b")
    stock = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    stock.set_timesteps(10)
    np.testing.assert_allclose(wan.sigmas(10, wan.size), stock.sigmas.numpy(), atol=2e-6)


def test_two_networks_equal_the_stock_pipeline_across_their_boundary() -> None:
    small = small_pipeline("WanPipeline")
    pipe = small.build(boundary_ratio=0.875)
    known = wrap(pipe).blueprint.with_frames(5)
    model = known.wrap(pipe)
    assert (known.boundary, known.guidance, known.low_guidance) == (0.875, 4.0, 3.0)
    sigmas = known.sigmas(4, (32, 32))
    assert sigmas[0] > 0.875 > sigmas[2]
    ours = sample(model, known.plain(4, (32, 32)), model.encode(["a red fox"]), [3], (32, 32))
    theirs = small.stock_latents(pipe, known, ["a red fox"], [3], 4, (32, 32))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_a_video_cannot_change_size_by_way_of_its_frames() -> None:
    pipe = small_pipeline("WanPipeline").build()
    stages = [{"scale": 0.5, "steps": 2}, {"steps": 2, "strength": 0.5, "resample": "pixel"}]
    options = ModelOptions(frames=5)
    with pytest.raises(UserError, match="makes videos, which `resample: pixel` cannot resize"):
        generate(pipe, "fox", Schedule.model_validate({"stages": stages}), height=32, width=48, options=options)


def test_generate_returns_the_frames_that_were_asked_for() -> None:
    pipe = small_pipeline("WanPipeline").build()
    (video,) = generate(pipe, "a red fox", SCHEDULE, height=32, width=48, options=ModelOptions(frames=5)).images
    assert [(frame.height, frame.width) for frame in video] == [(32, 48)] * 5


def test_a_study_draws_videos_and_keeps_one_frame_of_each() -> None:
    class Constant:
        name, unit, direction = "constant", "points", "maximize"

        def score(self, images: Any, prompts: Any) -> list[float]:
            return [1.0 for _ in images]

    pipe = small_pipeline("WanPipeline").build()
    model = wrap(pipe).blueprint.with_frames(5).wrap(pipe)
    task = Task(SCHEDULE, ("a red fox",), (1,), (32, 48), keep_images=True)
    result = Evaluator(model, [Constant()]).evaluate(task)
    assert isinstance(result, ChunkResult)
    assert result.scores == {"constant": [1.0]}
    assert Image.open(io.BytesIO(result.images[0])).size == (48, 32)
