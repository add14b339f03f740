"""Video and sound drawn together: LTX-2."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from studies.work.evaluator import Evaluator
from studies.work.task import ChunkResult, Task
from tests.small_pipelines import shortened, small_pipeline
from tuner import generate
from tuner.models import ModelOptions, blueprint, wrap
from tuner.models.ltx2 import LTX2Blueprint, LTX2Model
from tuner.resample import expand_spectrum, resize
from tuner.sampling import renoise, run_stage, sample, stage_seeds, stage_start
from tuner.schedule import Schedule, Stage
from tuner.sigmas import aligned_sigma

SMALL = small_pipeline("LTX2Pipeline")
SIZE = (64, 96)
STAGES = Schedule(stages=(Stage(scale=0.5, steps=2), Stage(steps=2, strength=0.5)))


@pytest.fixture(scope="module")
def pipe() -> Any:
    return SMALL.build()


@pytest.fixture(scope="module")
def model(pipe: Any) -> LTX2Model:
    return cast(LTX2Model, shortened(wrap(pipe).blueprint, SMALL).wrap(pipe))


def test_the_first_version_needs_one_pass_less() -> None:
    pipe = SMALL.build(first_version=True)
    known = shortened(wrap(pipe).blueprint, SMALL)
    assert known.passes == blueprint("ltx2").passes == 3  # its network cannot skip a self-attention
    found = known.wrap(pipe)
    ours = sample(found, known.plain(4, SIZE), found.encode(["a red fox"]), [3], SIZE)
    theirs = SMALL.stock_latents(pipe, known, ["a red fox"], [3], 4, SIZE)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_a_guidance_scale_of_one_is_one_pass(pipe: Any, model: LTX2Model) -> None:
    known = model.blueprint.with_options(ModelOptions(guidance=1.0))
    assert (known.passes, model.blueprint.passes) == (1, 4)
    alone = known.wrap(pipe)
    conditioning = alone.encode(["a red fox"])
    assert not [name for name in conditioning if name.startswith("negative")]
    ours = sample(alone, known.plain(4, SIZE), conditioning, [3], SIZE)
    theirs = SMALL.stock_latents(pipe, known, ["a red fox"], [3], 4, SIZE)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_every_guidance_pass_matters(pipe: Any, model: LTX2Model) -> None:
    x, text = model.noise(SIZE, [0]), model.encode(["a red fox"])
    found = model.blueprint.predictions(pipe.transformer, x, 0.9, text, model.encode([""]))
    assert sorted(found) == ["away", "isolated", "perturbed", "towards"]
    for one, other in itertools.combinations(found, 2):
        for part in (0, 1):
            a, b = (model.blueprint.parted(found[name])[part] for name in (one, other))
            assert not torch.allclose(a, b, atol=1e-4), (one, other, part)


def test_frames_and_waves_equal_the_stock_pipelines(pipe: Any, model: LTX2Model) -> None:
    known = model.blueprint.with_options(ModelOptions(guidance=1.0))
    found = generate(known.wrap(pipe), "a red fox", known.plain(2, SIZE), 3, *SIZE)
    off = {"audio_guidance_scale": 1, "stg_scale": 0, "audio_stg_scale": 0, "modality_scale": 1}
    video, waves = pipe(
        "a red fox",
        height=SIZE[0],
        width=SIZE[1],
        num_frames=known.frames,
        num_inference_steps=2,
        guidance_scale=1,
        audio_modality_scale=1,
        max_sequence_length=known.text_tokens,
        generator=torch.Generator().manual_seed(3),
        output_type="np",
        return_dict=False,
        **off,
    )
    ours = np.stack([np.asarray(frame) for frame in found.images[0]])
    assert np.abs(ours / 255 - video[0]).max() < 2 / 255
    (sound,) = found.sounds
    assert sound.rate == 16000
    assert waves[0].std() > 1e-3
    torch.testing.assert_close(sound.wave_CT, waves[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("mode", ["bilinear", "dct"])
@pytest.mark.parametrize("scales", [(0.5, 1.0), (1.0, 1.0)])
def test_a_change_of_size_leaves_the_sound_alone(model: LTX2Model, mode: str, scales: tuple[float, float]) -> None:
    known, size, level = model.blueprint, (128, 192), 0.6
    start = aligned_sigma(level, scales[1] / scales[0]) if mode == "dct" else 0.8
    stages = [
        {"scale": scales[0], "sigmas": [1, level]},
        {"scale": scales[1], "sigmas": [start, 0], "resample": mode},
    ]
    schedule = Schedule.model_validate({"stages": stages})
    before = model.noise(known.stage_size(size, scales[0]), [5])
    after = stage_start(model, schedule, 1, before, [5], size)
    fresh = model.noise(size, stage_seeds([5], 1))
    assert after.shape == fresh.shape == (1, *known.latent_shape(size))
    (picture, sound), (fresh_picture, fresh_sound) = known.parted(before), known.parted(fresh)
    assert sound.shape == fresh_sound.shape == (1, *known.sound_shape)
    torch.testing.assert_close(known.parted(after)[1], renoise(sound, fresh_sound, level, start))
    if mode == "bilinear":
        expected = renoise(resize(picture, fresh.shape[-2:], mode), fresh_picture, level, start)
    else:
        expected = expand_spectrum(picture, fresh_picture, level, scales[1] / scales[0])
    torch.testing.assert_close(model.picture(after), expected)


@settings(deadline=None, max_examples=30)
@given(
    frames=st.integers(0, 20).map(lambda n: 8 * n + 1),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    channels=st.sampled_from([4, 128]),
)
def test_what_is_joined_can_be_parted(frames: int, size: tuple[int, int], channels: int) -> None:
    stated = cast(LTX2Blueprint, blueprint("ltx2").with_frames(frames))
    known = replace(stated, transformer={**stated.transformer, "in_channels": channels})
    pixels = (32 * size[0], 32 * size[1])
    picture, sound = torch.randn(2, *known.picture_shape(pixels)), torch.randn(2, *known.sound_shape)
    joined = known.joined(picture, sound)
    assert joined.shape == (2, *known.latent_shape(pixels))
    for found, expected in zip(known.parted(joined), (picture, sound), strict=True):
        assert torch.equal(found, expected)


def test_the_sound_lasts_as_long_as_the_frames() -> None:
    known = cast(LTX2Blueprint, blueprint("ltx2"))
    assert known.sound_shape == (126, 128)  # 121 / 24 s at 25 per second
    assert known.latent_shape((512, 768)) == (128, 17, 16, 24)  # one frame holds the sound
    assert known.latent_shape((256, 384)) == (128, 18, 8, 12)


def test_a_study_scores_the_same_frames_from_kept_stages(model: LTX2Model) -> None:
    seen: list[Any] = []

    class Looks:
        name, unit, direction = "looks", "points", "maximize"

        def score(self, images: Any, prompts: Any) -> list[float]:
            seen.append(np.stack([np.asarray(frame) for frame in images]))
            return [1.0 for _ in images]

    evaluator = Evaluator(model, [Looks()])
    task = Task(STAGES, ("a red fox", "fox"), (1, 2), SIZE)
    for kept in (0, 1):
        result = evaluator.evaluate(task)
        assert isinstance(result, ChunkResult)
        assert result.kept_stages == kept
    half = len(seen) // 2
    assert half
    for first, second in zip(seen[:half], seen[half:], strict=True):
        assert np.array_equal(first, second)


def test_a_row_of_a_stage_does_not_depend_on_its_batch(model: LTX2Model) -> None:
    text = model.encode(["a red fox", "fox"])
    first = run_stage(model, STAGES, 0, None, text, [1, 2], SIZE)
    rows = {name: value[1:] for name, value in text.items()}
    alone = run_stage(model, STAGES, 1, first[1:], rows, [2], SIZE)
    together = run_stage(model, STAGES, 1, first, text, [1, 2], SIZE)
    torch.testing.assert_close(together[1:], alone, rtol=0, atol=1e-4)


def test_wrapping_leaves_the_tokenizer_as_it_was(pipe: Any, model: LTX2Model) -> None:
    pipe.tokenizer.padding_side = "right"
    model.encode(["a red fox"])
    assert pipe.tokenizer.padding_side == "right"
    assert torch.equal(model.encode(["fox"])["tokens"], model.encode(["fox"])["tokens"])
