"""The one line that runs a preset on a pipeline."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuner import presets
from tuner.errors import UserError
from tuner.invariance import batch_invariant, decode_each
from tuner.lora import applied
from tuner.models import FlowModel, ModelOptions, wrap
from tuner.presets import Preset
from tuner.sampling import StepCallback, sample
from tuner.schedule import Schedule

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Generation:
    """What ``generate`` returns; ``images`` has one image per prompt, as diffusers' pipeline outputs do."""

    images: list[Image.Image]


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
    """Generates images with a preset.

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
        options: Guidance, negative prompt and LoRA; by default the preset's, and where it names none, the model's.
            A `FlowModel` has its own already.
        free_text_encoders: Whether the pipeline gives up its text encoders once the prompts are encoded.

    Raises:
        UserError: If the preset, the model, the size or the number of seeds is wrong, or if the preset's LoRA
            cannot be fetched or does not fit.
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
    with applied(model, options), batch_invariant():
        conditioning = model.encode(prompts)
        if free_text_encoders:
            model.free_text_encoders()
        latents = sample(model, schedule, conditioning, seeds, size, on_step)
        return Generation(images=decode_each(model, latents))
