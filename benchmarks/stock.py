"""FLUX's stock pipeline on the steps of ours, and how the two are timed beside each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch

from tuner.models._diffusers import PipelineBlueprint
from tuner.models.base import Conditioning, Size

T = TypeVar("T")


def stock_flux(
    pipe: Any, known: PipelineBlueprint, text: Conditioning, steps: int, seeds: Sequence[int], size: Size
) -> torch.Tensor:
    """Runs diffusers' own FLUX loop from embeddings to latents: what ``sample`` does with ``known.plain(steps)``.

    Args:
        pipe: The pipeline.
        known: Its blueprint.
        text: B rows of conditioning.
        steps: Solver steps.
        seeds: B noise seeds.
        size: Output (height, width) in pixels.

    Returns:
        Latents (B, C, h, w), in the precision of the network.
    """
    packed = pipe(
        prompt_embeds=text["tokens"],
        pooled_prompt_embeds=text["pooled"],
        height=size[0],
        width=size[1],
        num_inference_steps=steps,
        guidance_scale=known.guidance or 3.5,  # not used where the network takes no guidance scale
        max_sequence_length=known.text_tokens,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        output_type="latent",
    ).images
    latents: torch.Tensor = pipe._unpack_latents(packed, *size, pipe.vae_scale_factor)
    return latents


def in_turn(
    ways: Mapping[str, Callable[[], object]],
    timed: Callable[[Callable[[], object]], T],
    runs: int,
    warmed_up: bool = False,
) -> dict[str, list[T]]:
    """Times ways of doing the same thing in turn, so that whatever else the machine does slows all of them alike.

    Args:
        ways: What to time, by name.
        timed: Calls one of them and says how long it took.
        runs: Timed runs of each; every other round goes backwards.
        warmed_up: Whether the caller has warmed up; otherwise each runs once before, without being timed.

    Returns:
        What ``timed`` said, by name.
    """
    for way in () if warmed_up else ways.values():
        way()
    times: dict[str, list[T]] = {name: [] for name in ways}
    for run in range(runs):
        for name in reversed(ways) if run % 2 else ways:
            times[name].append(timed(ways[name]))
    return times
