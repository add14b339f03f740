"""The one line that runs a preset on a pipeline, called as the pipeline itself is."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from tuner import presets
from tuner.errors import UserError
from tuner.feature_cache import FirstBlockCache
from tuner.flops import counting
from tuner.generation_inputs import chosen_seeds, given_embeddings, listed, unknown_argument, with_text_length
from tuner.generation_steps import StepEnd, watched
from tuner.invariance import batch_invariant, decode_each
from tuner.lora import applied
from tuner.models import FlowModel, ModelOptions, Sound, wrap
from tuner.models._pipeline_model import PipelineModel
from tuner.presets import Preset
from tuner.sampling import StepCallback, run_stage
from tuner.schedule import Schedule

if TYPE_CHECKING:
    import torch

OutputType: TypeAlias = Literal["pil", "np", "pt", "latent"]

_DECIDED = ("num_inference_steps", "sigmas", "timesteps")
"""Arguments of pipelines that a preset has the say in."""


@dataclass(frozen=True)
class Generation:
    """The return value of ``generate``.

    Attributes:
        images: One image per prompt, as in diffusers' pipeline outputs; of a video model, one list of frames. An
            array (B, H, W, 3) from 0 to 1 for ``np``, a tensor (B, 3, H, W) for ``pt``, latents (B, C, h, w) for
            ``latent``.
        tflops: TFLOPs per image that were counted, where the schedule's price is only an upper bound; else None.
        sounds: One sound per video, where the model draws sound; else none.
    """

    images: Any
    tflops: float | None = None
    sounds: list[Sound] = field(default_factory=list)

    def __getitem__(self, index: int) -> Any:
        """Returns the images at 0, as pipeline outputs do."""
        return (self.images,)[index]

    @property
    def frames(self) -> Any:
        """The videos, as outputs of video pipelines call them."""
        return self.images


def generate(
    pipe: Any,
    prompt: str | Sequence[str] | None,
    preset: Preset | Schedule | str | os.PathLike[str],
    seed: int | Sequence[int] | None = 0,
    height: int | None = None,
    width: int | None = None,
    on_step: StepCallback | None = None,
    options: ModelOptions | None = None,
    free_text_encoders: bool = False,
    *,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    num_images_per_prompt: int = 1,
    negative_prompt: str | Sequence[str] | None = None,
    guidance_scale: float | None = None,
    output_type: OutputType = "pil",
    callback_on_step_end: StepEnd | None = None,
    max_sequence_length: int | None = None,
    num_frames: int | None = None,
    **encoded: Any,
) -> Generation:
    """Generates images, or videos, with a preset.

    ``tuner.generate(pipe, "a red fox", preset="flux-3x.yaml").images[0]``

    On a CPU one thread draws, and an image depends on its own prompt and seed alone, bit by bit, not on how many
    are drawn at once: it is the image that a study's worker scored.

    Args:
        pipe: A loaded diffusers pipeline of a known family, or a `FlowModel`. A LoRA that the preset needs is
            loaded into it, and taken off again at the end: nothing of it has changed then. Its progress bar counts
            network calls.
        prompt: One prompt, or one per image; None with embeddings.
        preset: A preset, its file or shipped name, ``plain:N`` for N plain steps, or a bare schedule.
        seed: Noise seed of the first image, the following images counting up; or one seed per image. None draws
            one.
        height: Output height in pixels; the preset's by default, the model's for a bare schedule.
        width: Output width in pixels, likewise.
        on_step: Called before every network call.
        options: Guidance, negative prompt, LoRA and frames; by default the preset's, and where it names none, the
            model's. A `FlowModel` has its own already.
        free_text_encoders: Whether the pipeline gives up its text encoders once the prompts are encoded.
        generator: In the place of a seed: one generator, or one per image. A fresh one stands for its seed, and
            every call moves it on.
        num_images_per_prompt: Images of each prompt, one after the other.
        negative_prompt: What true guidance leads away from, for all images.
        guidance_scale: Guidance scale, true or distilled as the model has it.
        output_type: ``pil``, ``np``, ``pt`` or ``latent``, as in diffusers.
        callback_on_step_end: ``callback(pipe, step, timestep, {"latents": latents})`` after a step, as in
            diffusers; it may look at the latents, but not change them.
        max_sequence_length: Text tokens that prompts are cut or padded to.
        num_frames: Frames of a video.
        **encoded: Encoded prompts in the place of the prompt, as the pipeline's own arguments: ``prompt_embeds``
            and those beside it.

    Raises:
        UserError: If the preset, the model, the size, an argument, or the number of seeds or of frames is wrong,
            or if the preset's LoRA cannot be fetched or does not fit.
    """
    for name in [name for name in encoded if not name.endswith(("_embeds", "_mask"))]:
        raise unknown_argument(name, _DECIDED)
    if output_type not in get_args(OutputType):
        raise UserError(f"output_type must be one of {', '.join(get_args(OutputType))}, but got {output_type!r}.")
    loaded = _preset(preset, pipe, (height, width))
    chosen = _options(options, loaded, guidance_scale, negative_prompt, num_frames)
    model = _model(pipe, chosen)
    if max_sequence_length is not None:
        model = with_text_length(model, max_sequence_length)
    if isinstance(loaded, Schedule):
        schedule, default = loaded, model.blueprint.size
    else:
        schedule, default = loaded.schedule, (loaded.height, loaded.width)
    prompts = listed(prompt, num_images_per_prompt, encoded)
    size = model.blueprint.check_size((height or default[0], width or default[1]))
    with applied(model, None if model is pipe else chosen), batch_invariant(model):
        if encoded:
            conditioning = given_embeddings(model, encoded, num_images_per_prompt)
            count = len(next(iter(conditioning.values())))
        else:
            conditioning, count = model.encode(prompts), len(prompts)
        seeds = chosen_seeds(seed, generator, count)
        if free_text_encoders or model.when_encoded:
            model.free_text_encoders()
        known_cost = not isinstance(schedule.cache, FirstBlockCache)
        x: torch.Tensor | None = None
        counted = contextlib.nullcontext() if known_cost else counting()
        with counted as tflops, watched(model, schedule, callback_on_step_end) as steps:
            for index in range(len(schedule.stages)):
                x = run_stage(model, schedule, index, x, conditioning, seeds, size, steps.before(on_step))
                steps.after_stage(index, x)
        assert x is not None  # a schedule has at least one stage
        return Generation(
            _items(model, x, output_type),
            tflops() / count if tflops else None,
            [sound for row in x for sound in model.sounds(row[None])],
        )


def attach(pipe: Any, preset: Preset | Schedule | str | os.PathLike[str]) -> Attached:
    """Returns an object of the pipeline's interface whose call runs a preset.

    ``pipe = tuner.attach(pipe, "flux-3x.yaml")`` is the one line that existing code needs.

    Args:
        pipe: A loaded diffusers pipeline of a known family.
        preset: A preset, its file or shipped name, or a bare schedule.

    Raises:
        UserError: If the preset or the pipeline is not known.
    """
    loaded = _preset(preset, pipe, (None, None))
    if not isinstance(pipe, FlowModel):
        wrap(pipe)
    return Attached(pipe, loaded)


class Attached:
    """A pipeline whose call runs a preset; everything else is the pipeline's own.

    Args:
        pipe: The pipeline.
        preset: What a call runs.
    """

    def __init__(self, pipe: Any, preset: Preset | Schedule):
        self._pipe, self._preset = pipe, preset

    def __call__(
        self, prompt: str | Sequence[str] | None = None, *, return_dict: bool = True, **arguments: Any
    ) -> Generation | tuple[Any]:
        """Generates with the preset.

        Args:
            prompt: One prompt, or one per image.
            return_dict: False returns a tuple of the images alone.
            **arguments: Those of ``generate``; those of the pipeline's steps are left out with a warning.

        Raises:
            UserError: If an argument is wrong, or if a callback asks for more than the latents.
        """
        if (arguments.pop("callback_on_step_end_tensor_inputs", None) or ["latents"]) != ["latents"]:
            raise UserError("callback_on_step_end_tensor_inputs may name 'latents' alone; leave it out.")
        for name in _DECIDED:
            if arguments.pop(name, None) is not None:
                warnings.warn(f"{name} is left out: the preset has its own steps.", stacklevel=2)
        made = generate(self._pipe, prompt, self._preset, **arguments)
        return made if return_dict else (made.images,)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipe, name)

    def to(self, *places: Any, **how: Any) -> Attached:
        """Moves the pipeline and returns this object, as the pipeline returns itself."""
        self._pipe.to(*places, **how)
        return self


def _preset(
    preset: Preset | Schedule | str | os.PathLike[str], pipe: Any, size: tuple[int | None, int | None]
) -> Preset | Schedule:
    """Loads a preset that is named; plain steps are those of the pipeline's model at the given size."""
    if isinstance(preset, (Preset, Schedule)):
        return preset
    if not os.fspath(preset).startswith(presets.PLAIN):
        return presets.load(preset)
    known = (pipe if isinstance(pipe, FlowModel) else wrap(pipe)).blueprint
    return presets.load(preset, known, (size[0] or known.height, size[1] or known.width))


def _options(
    options: ModelOptions | None,
    loaded: Preset | Schedule,
    guidance: float | None,
    negative: str | Sequence[str] | None,
    frames: int | None,
) -> ModelOptions | None:
    """Returns the options, the preset's by default, with the guidance, negative prompt and frames of this call."""
    chosen = options or (loaded.model_options if isinstance(loaded, Preset) else None)
    if negative is not None and not isinstance(negative, str):
        if len(set(negative)) != 1:
            raise UserError(
                "negative_prompt must be one text for all images, but there are several; call once for each."
            )
        negative = negative[0]
    given = {"guidance": guidance, "negative_prompt": negative, "frames": frames}
    wanted = {name: value for name, value in given.items() if value is not None}
    return (chosen or ModelOptions()).model_copy(update=wanted) if wanted else chosen


def _model(pipe: Any, chosen: ModelOptions | None) -> FlowModel:
    """Wraps a pipeline with the options of this call; a `FlowModel` has its own."""
    if isinstance(pipe, FlowModel):
        return pipe
    model = wrap(pipe)
    return model.blueprint.with_options(chosen).wrap(pipe) if chosen is not None else model


def _items(model: FlowModel, latents: torch.Tensor, output_type: OutputType) -> Any:
    """Decodes latents one by one to the requested output type."""
    if output_type == "latent":
        return latents
    if output_type == "pil":
        return decode_each(model, latents)
    if not isinstance(model, PipelineModel):
        raise UserError(f"Model {model.blueprint.name!r} makes images of PIL alone; leave output_type out.")
    import numpy as np
    import torch

    with _decoding_to(model, output_type):
        items = decode_each(model, latents)
    return np.stack(items) if output_type == "np" else torch.stack(items)


@contextlib.contextmanager
def _decoding_to(model: PipelineModel, output_type: str) -> Iterator[None]:
    before, model.output_type = model.output_type, output_type
    try:
        yield
    finally:
        model.output_type = before
