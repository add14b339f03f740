"""Published schedules for Stable Diffusion XL, against what their authors' code computes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionXLPipeline
from diffusers.schedulers import AysSchedules

from tests.small_pipelines import parts, small_pipeline
from tuner import presets
from tuner.errors import UserError
from tuner.lora import applied
from tuner.models import ModelOptions, blueprint, wrap
from tuner.models._variance_preserving import VariancePreserving
from tuner.sampling import sample, stage_seeds

PROMPTS = ["a red fox"]
SIZE = (64, 64)


@pytest.fixture(scope="module")
def pipe() -> Any:
    return small_pipeline("StableDiffusionXLPipeline").build()


def test_the_ays_preset_is_diffusers_table_converted() -> None:
    (stage,) = presets.load("ays-sdxl-10").schedule.stages
    ratios = AysSchedules["StableDiffusionXLSigmas"]
    np.testing.assert_allclose(stage.sigmas, [k / (1 + k) for k in ratios], rtol=0, atol=1e-6)
    levels = VariancePreserving(blueprint("sdxl").scheduler)
    timesteps = [levels.level(sigma)[1] for sigma in stage.sigmas[:-1]]
    np.testing.assert_allclose(timesteps, AysSchedules["StableDiffusionXLTimesteps"], atol=0.5)


def test_the_ays_preset_gives_the_stock_pipelines_latents_with_the_table(pipe: Any) -> None:
    model = wrap(pipe)
    ours = sample(model, presets.load("ays-sdxl-10").schedule, model.encode(PROMPTS), [3], SIZE)
    sigmas = AysSchedules["StableDiffusionXLSigmas"]
    theirs = parts.latents(pipe, model.blueprint, PROMPTS, [3], len(sigmas) - 1, SIZE, sigmas=sigmas)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)  # the preset has six decimals


def test_the_swd_preset_has_the_levels_of_its_timesteps() -> None:
    first, *others = presets.load("swd-sdxl-4").schedule.stages
    assert first.sigmas[0] == 1
    levels = VariancePreserving(blueprint("sdxl").scheduler)
    timesteps = [levels.level(stage.sigmas[0])[1] for stage in (first, *others)]
    np.testing.assert_allclose(timesteps, [999, 800, 600, 400], atol=1e-2)


def test_the_swd_preset_gives_the_latents_of_its_own_loop(pipe: Any) -> None:
    """Predict the clean image, enlarge it, noise it with the model's own schedule; same noise, same latents."""
    schedule = presets.load("swd-sdxl-4").schedule
    known = wrap(pipe).blueprint
    model = replace(known, guidance=1.0).wrap(pipe)
    text = model.encode(PROMPTS)
    ours = sample(model, schedule, text, [3], SIZE)

    scheduler = DDPMScheduler.from_config(pipe.scheduler.config, clip_sample=False)

    def clean(z: torch.Tensor, timestep: int) -> torch.Tensor:
        kept = float(scheduler.alphas_cumprod[timestep])
        with torch.no_grad():
            return (z - math.sqrt(1 - kept) * known.predict(pipe.unet, z, timestep, text)) / math.sqrt(kept)

    image = clean(model.noise(known.stage_size(SIZE, 0.5), [3]), 999)
    for step, (stage, timestep) in enumerate(zip(schedule.stages[1:], (800, 600, 400), strict=True), start=1):
        noise = model.noise(known.stage_size(SIZE, stage.scale), stage_seeds([3], step))
        enlarged = torch.nn.functional.interpolate(image, noise.shape[-2:], mode="bicubic")
        image = clean(scheduler.add_noise(enlarged, noise, torch.tensor([timestep])), timestep)
    assert ours.shape == image.shape
    torch.testing.assert_close(ours, image, rtol=0, atol=1e-3)  # the preset has six decimals


def test_an_empty_negative_prompt_is_zeros_as_the_pipeline_has_it(pipe: Any) -> None:
    model = wrap(pipe)
    empty, written = (
        replace(model.blueprint, negative_prompt=prompt).wrap(pipe).encode(PROMPTS) for prompt in ("", "blue")
    )
    for name in ("negative_tokens", "negative_pooled"):
        assert not empty[name].any()
        assert written[name].any()


def test_a_half_precision_vae_decodes_in_single_precision(pipe: Any) -> None:
    model = wrap(pipe)
    x = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    (expected,) = model.decode(x)
    seen: list[torch.dtype] = []
    hook = pipe.vae.decoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].dtype))
    try:
        pipe.vae.to(torch.float16)
        (image,) = model.decode(x)
        assert (seen, pipe.vae.dtype) == ([torch.float32], torch.float16)
    finally:
        hook.remove()
        pipe.vae.to(torch.float32)
    assert np.abs(np.asarray(image, dtype=int) - np.asarray(expected, dtype=int)).max() <= 2


def test_a_lora_goes_to_the_unet_and_the_text_encoders_and_off_again(pipe: Any, tmp_path: Path) -> None:
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    other = small_pipeline("StableDiffusionXLPipeline").build(seed=1)
    trained = (other.unet, other.text_encoder, other.text_encoder_2)
    for part, targets in zip(trained, (["to_q", "to_v"], ["q_proj"], ["q_proj"]), strict=True):
        part.add_adapter(LoraConfig(r=2, target_modules=targets, init_lora_weights=False))
    StableDiffusionXLPipeline.save_lora_weights(tmp_path, *map(get_peft_model_state_dict, trained))
    model = wrap(pipe)
    x = model.noise(SIZE, [3])

    def seen() -> tuple[torch.Tensor, torch.Tensor]:
        text = model.encode(PROMPTS)
        return text["tokens"], model.velocity(x, 0.5, text)

    networks = (pipe.unet, pipe.text_encoder, pipe.text_encoder_2)
    modules = [[id(module) for module in network.modules()] for network in networks]
    before = seen()
    with applied(model, ModelOptions(lora=str(tmp_path))):
        assert not any(map(torch.equal, seen(), before))
    with applied(model, ModelOptions(lora=f"{tmp_path}:0")):
        assert all(map(torch.allclose, seen(), before))
    assert all(map(torch.equal, seen(), before))
    assert [[id(module) for module in network.modules()] for network in networks] == modules
    assert not any(hasattr(network, "peft_config") for network in networks)


def test_a_lora_in_pefts_format_goes_to_the_unet_as_peft_does_it(pipe: Any, tmp_path: Path) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model

    other = small_pipeline("StableDiffusionXLPipeline").build()
    config = LoraConfig(r=2, lora_alpha=6, target_modules=["to_q", "to_v"], init_lora_weights=False)
    get_peft_model(other.unet, config).save_pretrained(tmp_path)
    model, known = wrap(pipe), small_pipeline("StableDiffusionXLPipeline").build()
    x, text = model.noise(SIZE, [3]), model.encode(PROMPTS)
    known.unet = PeftModel.from_pretrained(known.unet, tmp_path).base_model.model
    with applied(model, ModelOptions(lora=str(tmp_path))):
        torch.testing.assert_close(model.velocity(x, 0.5, text), wrap(known).velocity(x, 0.5, text))


def test_it_loads_from_a_folder_and_by_its_class(pipe: Any, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path)
    known = blueprint(str(tmp_path))
    assert known.pipeline_class == StableDiffusionXLPipeline.__name__
    assert known.size == wrap(pipe).blueprint.size
    assert torch.equal(known.load(device="cpu").noise(SIZE, [1]), wrap(pipe).noise(SIZE, [1]))


def test_a_unet_that_takes_the_guidance_scale_is_refused(pipe: Any) -> None:
    known = blueprint("sdxl")
    with pytest.raises(UserError, match="takes the guidance scale as an input is not supported"):
        known.described({"time_cond_proj_dim": 256}, {"block_out_channels": [1] * 4}, lambda part: {})
