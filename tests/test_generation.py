"""``tuner.generate`` takes what a pipeline takes, and gives what it gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, FluxPipeline
from PIL import Image

import tuner
from tests.small_flux import small_flux
from tests.small_pipelines import parts, small_pipeline
from tuner import generate
from tuner.errors import UserError
from tuner.models import blueprint, wrap
from tuner.models._packed import unpack_2x2
from tuner.presets import Preset
from tuner.schedule import Schedule, Stage
from tuner.tiny import PIPELINE_FOLDER

SIZE = (32, 32)
STEPS = 3
STAGED = Schedule(
    stages=(Stage(scale=0.5, sigmas=(1, 0.8, 0.5)), Stage(sigmas=(0.7, 0.4, 0.2, 0), reuse=(1,))),
)


@pytest.fixture(scope="module")
def plan(flux_pipe: Any) -> Schedule:
    return wrap(flux_pipe).blueprint.plain(STEPS, SIZE)


def of_pipeline(pipe: Any, prompts: Any, **more: Any) -> Any:
    arguments = {"height": 32, "width": 32, "num_inference_steps": STEPS, "max_sequence_length": 8, **more}
    return pipe(prompts, guidance_scale=3.5, **arguments)


def latents(pipe: Any, prompt: Any, plan: Schedule, **more: Any) -> torch.Tensor:
    made = generate(pipe, prompt, plan, height=32, width=32, output_type="latent", **more)
    assert isinstance(made.images, torch.Tensor)
    return made.images


@pytest.mark.parametrize("output_type", ["pil", "np", "pt", "latent"])
def test_every_output_type_is_the_pipelines(output_type: Any, flux_pipe: Any, plan: Schedule) -> None:
    theirs = of_pipeline(
        flux_pipe, ["a", "fox"], generator=parts.generators([5, 6]), output_type=output_type
    ).images
    ours = generate(flux_pipe, ["a", "fox"], plan, seed=5, height=32, width=32, output_type=output_type).images
    if output_type == "latent":
        theirs = unpack_2x2(theirs, 16, 16)
    if output_type == "pil":
        assert all(isinstance(image, Image.Image) for image in ours)
        ours, theirs = (np.stack([np.asarray(image) / 255 for image in images]) for images in (ours, theirs))
        np.testing.assert_allclose(ours, theirs, atol=1.1 / 255)
    else:
        assert type(ours) is type(theirs)
        np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), atol=1e-4)


def test_videos_are_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = small_pipeline("WanPipeline").build()
    schedule = Schedule(stages=(Stage(sigmas=(1, 0)),))
    options = tuner.models.ModelOptions(frames=5)
    made = generate(pipe, "fox", schedule, height=32, width=48, options=options, output_type="np")
    assert made.frames.shape == (1, 5, 32, 48, 3)
    again = tuner.attach(pipe, schedule)("fox", height=32, width=48, num_frames=5, output_type="np")
    np.testing.assert_array_equal(again[0], made.frames)
    assert len(generate(pipe, "fox", schedule, height=32, width=48, options=options).frames[0]) == 5


def test_generators_stand_for_their_seeds_and_move_on(flux_pipe: Any, plan: Schedule) -> None:
    expected = latents(flux_pipe, ["a", "fox"], plan, seed=[5, 9])
    assert torch.equal(latents(flux_pipe, ["a", "fox"], plan, generator=parts.generators([5, 9])), expected)
    generator = torch.Generator().manual_seed(5)
    first, second = (latents(flux_pipe, "a", plan, generator=generator) for _ in range(2))
    assert torch.equal(first, latents(flux_pipe, "a", plan, seed=5))
    assert not torch.equal(first, second)
    again = torch.Generator().manual_seed(5)
    latents(flux_pipe, "a", plan, generator=again)
    assert torch.equal(latents(flux_pipe, "a", plan, generator=again), second)


@pytest.mark.parametrize(
    ("seed", "same_as"),
    [
        (np.int64(5), [5, 6]),
        (np.array([1, 2]), [1, 2]),
        (2**64 - 1, [2**64 - 1, 0]),
        (torch.tensor([3, 4]), [3, 4]),
    ],
)
def test_seeds_of_every_kind(seed: Any, same_as: list[int], flux_pipe: Any, plan: Schedule) -> None:
    made = latents(flux_pipe, ["a", "fox"], plan, seed=seed)
    assert torch.equal(made, latents(flux_pipe, ["a", "fox"], plan, seed=same_as))


def test_no_seed_is_another_image_every_time(flux_pipe: Any, plan: Schedule) -> None:
    assert not torch.equal(latents(flux_pipe, "a", plan, seed=None), latents(flux_pipe, "a", plan, seed=None))


def test_images_of_a_prompt_follow_each_other(flux_pipe: Any, plan: Schedule) -> None:
    made = latents(flux_pipe, ["a", "fox"], plan, num_images_per_prompt=2, seed=4)
    expected = latents(flux_pipe, ["a", "a", "fox", "fox"], plan, seed=4)
    assert torch.equal(made, expected)


def test_guidance_and_negative_prompt_are_the_pipelines() -> None:
    small = small_pipeline("StableDiffusion3Pipeline")
    pipe = small.build()
    plan = wrap(pipe).blueprint.plain(STEPS, SIZE)
    arguments: dict[str, Any] = {"guidance_scale": 3.0, "negative_prompt": "blue", "max_sequence_length": 5}
    theirs = pipe(
        "a red fox",
        height=32,
        width=32,
        num_inference_steps=STEPS,
        generator=parts.generators([0]),
        output_type="latent",
        **arguments,
    ).images
    torch.testing.assert_close(latents(pipe, "a red fox", plan, **arguments), theirs, rtol=0, atol=1e-4)
    listed = latents(pipe, ["a", "fox"], plan, **arguments | {"negative_prompt": ["blue", "blue"]})
    assert torch.equal(listed, latents(pipe, ["a", "fox"], plan, **arguments))
    with pytest.raises(UserError, match="one text for all images"):
        latents(pipe, ["a", "fox"], plan, **arguments | {"negative_prompt": ["blue", "red"]})


def test_a_distilled_scale_is_the_pipelines_and_takes_no_negative_prompt(flux_pipe: Any, plan: Schedule) -> None:
    low, high = (latents(flux_pipe, "a", plan, guidance_scale=scale) for scale in (1.0, 7.0))
    assert not torch.equal(low, high)
    with pytest.raises(UserError, match="no pass with a negative prompt"):
        latents(flux_pipe, "a", plan, negative_prompt="blue")


def test_encoded_prompts_are_the_prompts(flux_pipe: Any, plan: Schedule) -> None:
    tokens, pooled, _ = flux_pipe.encode_prompt(["a", "fox"], None, max_sequence_length=8)
    given = {"prompt_embeds": tokens, "pooled_prompt_embeds": pooled}
    made = latents(flux_pipe, None, plan, num_images_per_prompt=2, **given)
    expected = latents(flux_pipe, ["a", "fox"], plan, num_images_per_prompt=2)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-5)
    with pytest.raises(UserError, match="needs pooled_prompt_embeds, prompt_embeds, but got prompt_embeds"):
        latents(flux_pipe, None, plan, prompt_embeds=tokens)
    with pytest.raises(UserError, match="either a prompt or prompt_embeds"):
        latents(flux_pipe, "a", plan, **given)


def test_a_callback_sees_every_step_as_the_pipelines_does(flux_pipe: Any, plan: Schedule) -> None:
    def told(seen: list[Any]) -> Any:
        def callback(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            assert pipe is flux_pipe
            seen.append((step, tensors["latents"].clone()))
            return tensors

        return callback

    theirs: list[Any] = []
    ours: list[Any] = []
    of_pipeline(flux_pipe, ["a"], generator=parts.generators([0]), callback_on_step_end=told(theirs))
    latents(flux_pipe, "a", plan, callback_on_step_end=told(ours))
    assert [step for step, _ in ours] == [step for step, _ in theirs] == [0, 1, 2]
    for (_, mine), (_, other) in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, unpack_2x2(other, 16, 16), rtol=0, atol=1e-4)


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_steps_of_all_stages_are_counted_through(solver: Any, flux_pipe: Any) -> None:
    seen: list[tuple[int, float]] = []
    schedule = Schedule(stages=(STAGED.stages[0], Stage(sigmas=(0.7, 0.4, 0.2, 0))), solver=solver)
    callback = lambda pipe, step, timestep, tensors: seen.append((step, timestep))  # noqa: E731
    latents(flux_pipe, "a", schedule, callback_on_step_end=callback)
    levels = [800, 500, 400, 200, 0]
    assert [step for step, _ in seen] == list(range(5))
    assert [timestep for _, timestep in seen] == pytest.approx(levels)


def test_a_callback_may_not_change_the_latents(flux_pipe: Any, plan: Schedule) -> None:
    with pytest.raises(UserError, match="not change them"):
        latents(flux_pipe, "a", plan, callback_on_step_end=lambda *args: {"latents": torch.zeros(1)})
    assert "velocity" not in vars(wrap(flux_pipe))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_inference_steps": 28}, "'num_inference_steps' is the preset's to decide"),
        ({"gidance_scale": 3}, "Did you mean 'guidance_scale'"),
        ({"true_cfg_scale": 3}, "Did you mean 'guidance_scale'"),
        ({"output_type": "jpg"}, "output_type must be one of pil, np, pt, latent"),
        ({"seed": "five"}, "A seed is a whole number"),
        ({"seed": torch.Generator()}, "A generator goes into `generator`"),
        ({"num_images_per_prompt": 0}, "1 or more"),
        ({"prompt": None}, "either a prompt or prompt_embeds"),
        ({"prompt": [3]}, "A prompt is a text"),
        ({"prompt": []}, "A prompt is a text"),
        ({"image_embeds": 3}, "Unknown argument 'image_embeds'|either a prompt"),
        ({"height": 33}, "must be positive multiples"),
        ({"num_frames": 5}, "makes images, so it cannot make 5 frames"),
    ],
)
def test_what_it_does_not_take_is_one_line(
    arguments: dict[str, Any], message: str, flux_pipe: Any, plan: Schedule
) -> None:
    given = {"prompt": "a", "preset": plan, "height": 32, "width": 32} | arguments
    with pytest.raises(UserError, match=message) as raised:
        generate(flux_pipe, **given)
    assert "\n" not in str(raised.value)


def test_the_progress_bar_is_the_pipelines(plan: Schedule, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = small_flux()
    generate(pipe, "a", plan, height=32, width=32)
    assert "/" not in capsys.readouterr().err
    pipe.set_progress_bar_config(disable=False)
    generate(pipe, "a", STAGED, height=32, width=32)
    assert "4/4" in capsys.readouterr().err


def test_attach_changes_one_line_of_existing_code(plan: Schedule) -> None:
    pipe = small_flux()
    preset = Preset(name="x", model="x", source="x", height=32, width=32, schedule=plan)
    attached = tuner.attach(pipe, preset)
    assert attached.transformer is pipe.transformer
    assert attached.to("cpu") is attached
    with pytest.warns(UserWarning, match="num_inference_steps is left out"):
        made = attached("a", num_inference_steps=50, guidance_scale=3.5, generator=parts.generators([3])[0])
    expected = generate(pipe, "a", preset, seed=3)
    assert made.images[0].tobytes() == expected.images[0].tobytes()
    latents = {
        "height": 32,
        "width": 32,
        "output_type": "latent",
        "callback_on_step_end_tensor_inputs": ["latents"],
    }
    (alone,) = attached("a", return_dict=False, seed=3, **latents)
    assert torch.equal(alone, attached("a", seed=3, **latents)[0])
    with pytest.raises(UserError, match="may name 'latents' alone"):
        attached("a", callback_on_step_end_tensor_inputs=["prompt_embeds"])
    with pytest.raises(UserError, match="belongs to no known model family"):
        tuner.attach(type("MyPipeline", (), {"config": {}})(), preset)


def test_a_bare_schedule_on_the_embedded_pipeline_has_its_size() -> None:
    pipe = FluxPipeline.from_pretrained(PIPELINE_FOLDER)
    pipe.set_progress_bar_config(disable=True)
    (image,) = generate(pipe, "a red circle", Schedule(stages=(Stage(sigmas=(1, 0)),))).images
    assert image.size == (64, 64)
    assert blueprint(str(PIPELINE_FOLDER)).size == (64, 64)


def test_pixels_go_through_a_tiny_autoencoder() -> None:
    pipe = small_flux()
    vae = AutoencoderTiny(
        latent_channels=4,
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ).eval()
    pipe = type(pipe)(**(pipe.components | {"vae": vae}))
    pipe.set_progress_bar_config(disable=True)
    stages = Stage(scale=0.5, sigmas=(1, 0.5, 0)), Stage(sigmas=(0.5, 0), resample="pixel")
    (image,) = generate(pipe, "a red fox", Schedule(stages=stages), height=32, width=32).images
    assert image.size == (32, 32)


def test_public_names_are_listed() -> None:
    assert {"generate", "attach", "Schedule", "Stage", "Preset"} <= set(dir(tuner))
