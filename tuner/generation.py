"""The one line that runs a preset on a pipeline."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tuner import presets
from tuner.errors import UserError
from tuner.feature_cache import FirstBlockCache
from tuner.flops import counting
from tuner.invariance import batch_invariant, decode_each
from tuner.lora import applied
from tuner.models import FlowModel, ModelOptions, Sound, wrap
from tuner.presets import Preset
from tuner.sampling import StepCallback, sample
from tuner.schedule import Schedule


@dataclass(frozen=True)
class Generation:
    """What ``generate`` returns.

    Attributes:
        images: One image per prompt, as in diffusers' pipeline outputs; of a video model, one list of frames.
        tflops: TFLOPs per image that were counted, where the schedule's price is only an upper bound; else None.
        sounds: One sound per video, where the model draws sound; else none.
    """

    images: list[Any]
    tflops: float | None = None
    sounds: list[Sound] = field(default_factory=list)


def generate(
    pipe: Any,
    prompt: str | Sequence[str],
    preset: Preset | Schedule | str | os.PathLike[str],
    seed: int | Sequence[int] = 0,
    height: int | None = None,
    width: int | None = None,
    on_step: StepCallback | None = None,
    options: ModelOptions | None = None,
    free_text_encoders: bool = False,
) -> Generation:
    """Generates images, or videos, with a preset.

    ``tuner.generate(pipe, "a red fox", preset="flux-3x.yaml").images[0]``

    On a CPU one thread draws, and an image depends on its own prompt and seed alone, bit by bit, not on how many
    are drawn at once: it is the image that a study's worker scored.

    Args:
        pipe: A loaded diffusers pipeline of a known family, or a `FlowModel`. A LoRA that the preset needs is
            loaded into it, and taken off again at the end: nothing of it has changed then.
        prompt: One prompt, or one per image.
        preset: A preset, its file or shipped name, or a bare schedule.
        seed: Noise seed of the first image, the following images counting up; or one seed per image.
        height: Output height in pixels; the preset's by default, the model's for a bare schedule.
        width: Output width in pixels, likewise.
        on_step: Called before every network call.
        options: Guidance, negative prompt, LoRA and frames; by default the preset's, and where it names none, the
            model's. A `FlowModel` has its own already.
        free_text_encoders: Whether the pipeline gives up its text encoders once the prompts are encoded.

    Raises:
        UserError: If the preset, the model, the size, or the number of seeds or of frames is wrong, or if the
            preset's LoRA cannot be fetched or does not fit.
    """
    loaded = preset if isinstance(preset, (Preset, Schedule)) else presets.load(preset)
    options = options or (loaded.model_options if isinstance(loaded, Preset) else None)
    model = pipe if isinstance(pipe, FlowModel) else wrap(pipe)
    if model is pipe:
        options = None
    elif options is not None:
        model = options.applied(model.blueprint).wrap(pipe)
    if isinstance(loaded, Schedule):
        schedule, default = loaded, model.blueprint.size
    else:
        schedule, default = loaded.schedule, (loaded.height, loaded.width)
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    seeds = [seed + i for i in range(len(prompts))] if isinstance(seed, int) else list(seed)
    if len(seeds) != len(prompts):
        raise UserError(
            f"Got {len(seeds)} seeds for {len(prompts)} prompts; give one seed per prompt, or one number."
        )
    size = (height or default[0], width or default[1])
    with applied(model, options), batch_invariant(model):
        conditioning = model.encode(prompts)
        if free_text_encoders:
            model.free_text_encoders()
        known_cost = not isinstance(schedule.cache, FirstBlockCache)
        with contextlib.nullcontext() if known_cost else counting() as tflops:
            latents = sample(model, schedule, conditioning, seeds, size, on_step)
        return Generation(
            decode_each(model, latents),
            tflops() / len(prompts) if tflops else None,
            [sound for row in latents for sound in model.sounds(row[None])],
        )
