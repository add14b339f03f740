from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image, ImageChops

from tests.small_flux import small_flux, stock_latents
from tuner.errors import UserError
from tuner.models import wrap
from tuner.sampling import renoise, sample, stage_seeds
from tuner.schedule import Schedule, Stage

PROMPTS = ["a red fox", "a blue circle above a red square", "fox"]


@pytest.mark.parametrize("guidance_embeds", [True, False])
@pytest.mark.parametrize("size", [(32, 32), (48, 80)])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_baseline_equals_the_stock_pipeline(guidance_embeds: bool, size: tuple[int, int], batch: int) -> None:
    pipe = small_flux(guidance_embeds=guidance_embeds)
    model = wrap(pipe)
    prompts, seeds = PROMPTS[:batch], [7, 8, 9][:batch]
    ours = sample(model, model.blueprint.plain(6, size), model.encode(prompts), seeds, size)
    theirs = stock_latents(pipe, prompts, seeds, 6, size)
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_decoded_images_equal_the_stock_pipelines(flux_pipe: Any) -> None:
    model = wrap(flux_pipe)
    latents = sample(model, model.blueprint.plain(3, (32, 32)), model.encode(["a red fox"]), [5], (32, 32))
    stock = flux_pipe(
        "a red fox",
        height=32,
        width=32,
        num_inference_steps=3,
        max_sequence_length=8,
        generator=torch.Generator("cpu").manual_seed(5),
    ).images[0]
    (image,) = model.decode(latents)
    assert isinstance(image, Image.Image)
    largest = max(high for _, high in ImageChops.difference(image, stock).getextrema())
    assert largest <= 1  # one grey level: 1e-5 in the latents may cross a rounding border


STAGED = Schedule(
    stages=(
        Stage(scale=1, steps=2, shift=3),
        Stage(scale=0.5, steps=4, strength=0.75, shift=3),
        Stage(scale=1, steps=4, strength=0.5, shift=3, resample="lanczos"),
    )
)


def test_an_image_does_not_depend_on_its_batch(flux_pipe: Any) -> None:
    model = wrap(flux_pipe)
    together = sample(model, STAGED, model.encode(PROMPTS), [1, 2, 3], (32, 32))
    for row, (prompt, seed) in enumerate(zip(PROMPTS, [1, 2, 3], strict=True)):
        alone = sample(model, STAGED, model.encode([prompt]), [seed], (32, 32))
        torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=1e-5)


def test_stages_run_at_their_sizes_and_renoise_as_equation_8_says(flux_pipe: Any) -> None:
    model = wrap(flux_pipe)
    seen: list[tuple[tuple[int, ...], float]] = []

    class Recording(type(model)):  # type: ignore[misc]
        def velocity(self, x: torch.Tensor, sigma: float, conditioning: Any) -> torch.Tensor:
            seen.append((tuple(x.shape[-2:]), sigma))
            return torch.zeros_like(x)  # the "clean image" stays the noise it started from

    recording = Recording(flux_pipe, model.blueprint)
    schedule = Schedule(stages=(Stage(sigmas=(1, 0)), Stage(sigmas=(0.25, 0))))
    result = sample(recording, schedule, {}, [11], (32, 32))
    first = model.noise((32, 32), [11])
    second = model.noise((32, 32), stage_seeds([11], 1))
    torch.testing.assert_close(result, 0.75 * first + 0.25 * second)
    seen.clear()
    sample(recording, STAGED, {}, [11], (32, 48))
    assert [shape for shape, _ in seen] == [(16, 24)] * 2 + [(8, 12)] * 3 + [(16, 24)] * 2
    assert [sigma for _, sigma in seen] == [s for stage in STAGED.stages for s in stage.sigmas[:-1]]


@pytest.mark.parametrize(("level", "target"), [(0.0, 0.4), (0.3, 0.3), (0.3, 0.7), (0.6, 1.0)])
def test_renoising_gives_a_latent_of_the_wanted_level(level: float, target: float) -> None:
    generator = torch.Generator().manual_seed(0)
    clean, first, fresh = torch.randn(3, 200_000, generator=generator)
    x = renoise((1 - level) * clean + level * first, fresh, level, target)
    share_of_clean = (x * clean).mean() / (clean * clean).mean()
    rest = x - (1 - target) * clean
    assert share_of_clean.item() == pytest.approx(1 - target, abs=0.01)
    assert rest.std().item() == pytest.approx(target, abs=0.01)
    assert (target > level) or torch.equal(x, (1 - level) * clean + level * first)


def test_a_stage_that_ends_early_hands_its_noisy_latent_on(flux_pipe: Any) -> None:
    model = wrap(flux_pipe)
    conditioning = model.encode(PROMPTS[:1])
    whole = Schedule(stages=(Stage(sigmas=(1, 0.7, 0.3, 0)),))
    split = Schedule(stages=(Stage(sigmas=(1, 0.7)), Stage(sigmas=(0.7, 0.3, 0))))
    expected = sample(model, whole, conditioning, [3], (32, 32))
    torch.testing.assert_close(sample(model, split, conditioning, [3], (32, 32)), expected, rtol=0, atol=0)


def test_seeds_of_later_stages_differ_by_stage_and_image() -> None:
    assert stage_seeds([1, 2], 0) == [1, 2]
    later = [*stage_seeds([1, 2], 1), *stage_seeds([1, 2], 2)]
    assert len({1, 2, *later}) == 6
    assert all(0 <= seed < 2**63 for seed in later)


def test_a_size_the_model_cannot_make_is_refused(flux_pipe: Any) -> None:
    model = wrap(flux_pipe)
    with pytest.raises(UserError, match="multiples of 4; try 32x32"):
        sample(model, STAGED, {}, [1], (33, 31))


def test_a_level_that_the_model_cannot_start_at_is_refused(flux_pipe: Any) -> None:
    with pytest.raises(UserError, match="first sigma must be 1"):
        sample(wrap(flux_pipe), Schedule(stages=(Stage(sigmas=(0.9, 0)),)), {}, [1], (32, 32))


@pytest.mark.parametrize("seed", [0, 5])
def test_a_step_per_scale_equals_diffusers_scale_wise_scheduler(flux_pipe: Any, seed: int) -> None:
    """SwD (arXiv 2503.16397): predict the clean image, enlarge it, add noise; same noise, same latents."""
    from diffusers import FlowMatchLCMScheduler

    sizes, sigmas = (16, 24, 32, 32), (1.0, 0.9, 0.7, 0.4)
    stages = [
        Stage(scale=side / 32, sigmas=(sigma, 0), resample="torch-bicubic")
        for side, sigma in zip(sizes, sigmas, strict=True)
    ]
    model = wrap(flux_pipe)
    conditioning = model.encode(PROMPTS[:1])
    ours = sample(model, Schedule(stages=tuple(stages)), conditioning, [seed], (32, 32))

    scheduler = FlowMatchLCMScheduler()
    scheduler.set_timesteps(sigmas=list(sigmas))
    scheduler.set_scale_factors([side / sizes[0] for side in sizes[1:]], "bicubic")
    x = model.noise((16, 16), [seed])
    for step, (t, sigma) in enumerate(zip(scheduler.timesteps, sigmas, strict=True), start=1):
        noise = torch.Generator().manual_seed(stage_seeds([seed], step)[0])
        with torch.no_grad():
            velocity = model.velocity(x, sigma, conditioning)
        x = scheduler.step(velocity, t, x, generator=noise, return_dict=False)[0]
    torch.testing.assert_close(ours, x, rtol=0, atol=1e-5)
