"""Checks and counts the inputs of ``tuner.generate``: prompts, seeds, generators and encoded prompts."""

from __future__ import annotations

import difflib
import inspect
import operator
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tuner.errors import UserError
from tuner.models import Conditioning, FlowModel
from tuner.models._pipeline_model import PipelineModel

if TYPE_CHECKING:
    import torch

_SEEDS = 2**64
"""Seeds of a generator of PyTorch are smaller."""

_TAKEN = (
    "prompt",
    "preset",
    "seed",
    "height",
    "width",
    "on_step",
    "options",
    "generator",
    "num_images_per_prompt",
    "negative_prompt",
    "guidance_scale",
    "output_type",
    "callback_on_step_end",
    "max_sequence_length",
    "num_frames",
    "prompt_embeds",
)
_EMBEDDINGS = {
    "prompt_embeds": "tokens",
    "pooled_prompt_embeds": "pooled",
    "prompt_attention_mask": "mask",
    "prompt_embeds_mask": "mask",
}
"""Our names of encoded prompts, by the pipelines' arguments."""


def unknown_argument(name: str, decided: Sequence[str]) -> UserError:
    """Builds the error for an argument that ``generate`` does not take.

    Args:
        name: The argument.
        decided: Arguments of pipelines that a preset has the say in.
    """
    if name in decided:
        return UserError(f"Argument {name!r} is the preset's to decide; leave it out, or change the preset.")
    near = {"true_cfg_scale": "guidance_scale", "num_videos_per_prompt": "num_images_per_prompt"}.get(name)
    near = near or next(iter(difflib.get_close_matches(name, _TAKEN, n=1)), None)
    hint = f"Did you mean {near!r}? " if near else ""
    return UserError(f"Unknown argument {name!r}. {hint}Available: {', '.join(_TAKEN)}.")


def listed(prompt: str | Sequence[str] | None, repeats: int, encoded: Mapping[str, Any]) -> list[str]:
    """Returns one prompt per image; none where they are encoded already.

    Raises:
        UserError: If there are neither prompts nor embeddings, or both, or something that is no text.
    """
    if repeats < 1:
        raise UserError(f"num_images_per_prompt must be 1 or more, but got {repeats}.")
    if (prompt is None) != bool(encoded):
        raise UserError("Give either a prompt or prompt_embeds.")
    prompts = [] if prompt is None else [prompt] if isinstance(prompt, str) else list(prompt)
    if not all(isinstance(one, str) for one in prompts) or (not prompts and not encoded):
        raise UserError(f"A prompt is a text, or a list of texts, but got {prompt!r}.")
    return [one for one in prompts for _ in range(repeats)]


def chosen_seeds(seed: Any, generator: Any, count: int) -> list[int]:
    """Returns one seed per image.

    Args:
        seed: A whole number, which counts up; one per image; or None for one that is drawn.
        generator: One generator, or one per image, in the place of a seed; or None.
        count: Number of images.

    Raises:
        UserError: If their number is another, or if they are no seeds.
    """
    import torch

    if generator is not None:
        given = [generator] if isinstance(generator, torch.Generator) else list(generator)
        seed = [_seed_of(one) for one in given]
        if len(seed) == 1:
            seed = seed[0]
    if isinstance(seed, torch.Generator):
        raise UserError("A generator goes into `generator`, not into `seed`.")
    if seed is None:
        seed = secrets.randbelow(_SEEDS >> 11)  # as JSON keeps it
    try:
        first = operator.index(seed)
    except TypeError:
        seeds = _each(seed)
    else:
        seeds = [(first + image) % _SEEDS for image in range(count)]
    if len(seeds) != count:
        raise UserError(f"Got {len(seeds)} seeds for {count} prompts; give one seed per prompt, or one number.")
    return seeds


def _each(seeds: Any) -> list[int]:
    try:
        return [operator.index(one) for one in seeds]
    except TypeError as error:
        raise UserError(f"A seed is a whole number, or one per image, but got {seeds!r}.") from error


def _seed_of(generator: torch.Generator) -> int:
    """Returns the seed of a fresh generator, or one that a used one draws; moves it on either way."""
    import torch

    seed = generator.initial_seed()
    fresh = torch.Generator(generator.device).manual_seed(seed)
    used = not torch.equal(fresh.get_state(), generator.get_state())
    drawn = torch.randint(2**53, (1,), generator=generator, device=generator.device)
    return int(drawn) if used else seed


def with_text_length(model: FlowModel, tokens: int) -> FlowModel:
    """Returns the model with prompts of another length.

    Raises:
        UserError: If its pipeline does not let one choose.
    """
    takes = isinstance(model, PipelineModel) and "max_sequence_length" in (
        inspect.signature(type(model.pipe).__call__).parameters
    )
    if not isinstance(model, PipelineModel) or not takes:
        raise UserError(
            f"Model {model.blueprint.name!r} has prompts of one length; leave max_sequence_length out."
        )
    return replace(model.blueprint, text_tokens=model.blueprint.fixed_text_tokens(model.pipe) + tokens).wrap(
        model.pipe
    )


def given_embeddings(model: FlowModel, given: Mapping[str, torch.Tensor], repeats: int) -> Conditioning:
    """Returns the conditioning of encoded prompts.

    Args:
        model: Whose network they are for.
        given: Tensors by the names of the pipeline's arguments.
        repeats: Images of each prompt.

    Raises:
        UserError: If some that the network needs are missing, or if others are there.
    """
    conditioning: dict[str, torch.Tensor] = {}
    for name, value in given.items():
        negative = name.startswith("negative_")
        known = _EMBEDDINGS.get(name.removeprefix("negative_"))
        if known is None:
            raise UserError(f"Unknown argument {name!r}. Encoded prompts are {', '.join(_EMBEDDINGS)}.")
        conditioning[("negative_" if negative else "") + known] = value.repeat_interleave(repeats, dim=0)
    needed = _needed(model)
    if set(conditioning) != needed:
        names = {ours: theirs for theirs, ours in reversed(_EMBEDDINGS.items())}
        spelled = [
            ("negative_" if one.startswith("negative_") else "") + names.get(one.removeprefix("negative_"), one)
            for one in sorted(needed)
        ]
        raise UserError(
            f"Model {model.blueprint.name!r} needs {', '.join(spelled)}, but got {', '.join(given)}; "
            "give exactly these, or the prompt."
        )
    return conditioning


def _needed(model: FlowModel) -> set[str]:
    """Names the tensors of a conditioning."""
    if not isinstance(model, PipelineModel):
        raise UserError(f"Model {model.blueprint.name!r} takes no prompt_embeds; give the prompt.")
    names = set(model.blueprint.meta_text(model.network(1.0).config))
    return names | {f"negative_{name}" for name in names} if model.blueprint.passes > 1 else names
