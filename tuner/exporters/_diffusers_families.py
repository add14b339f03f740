"""How the pipelines of diffusers take latents and guidance, one entry each."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tuner.models._diffusers import PipelineBlueprint
from tuner.models._video import VideoBlueprint
from tuner.models.wan2p1_1p3b import WanBlueprint

Shape = tuple[int, ...]


def literal(value: Any) -> str:
    """Writes plain data as Python source, its strings between double quotes."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{literal(key)}: {literal(entry)}" for key, entry in value.items()) + "}"
    return repr(value)


@dataclass(frozen=True, kw_only=True)
class Family:
    """What the script for one pipeline class has that others have not.

    Attributes:
        guidance: The argument that takes the guidance scale; empty where there is none.
        text_length: Whether there is an argument ``max_sequence_length``.
        drawn: Spatial unit noise, written in terms of ``noise`` as it was drawn.
        to_pipe: What the pipeline takes, written in terms of spatial latents ``x``.
        from_pipe: Spatial latents, written in terms of ``result``.
        noise: Turns the shape of spatial latents into the one that is drawn.
        packs: Whether these expressions call ``pack`` and ``unpack``.
        caches: Whether the pipeline tells a feature cache which guidance pass a call is.
        asks_for_negative: Whether the pipeline guides only if it is given a negative prompt, even an empty one.
        more: Further arguments.
    """

    guidance: str = "guidance_scale"
    text_length: bool = True
    drawn: str = "noise"
    to_pipe: str = "x"
    from_pipe: str = "result[0]"
    noise: Callable[[Shape], Shape] = tuple
    packs: bool = False
    caches: bool = False
    asks_for_negative: bool = False
    more: tuple[tuple[str, Any], ...] = ()

    def arguments(self, model: PipelineBlueprint) -> dict[str, Any]:
        """Returns the arguments of every call that the model decides."""
        arguments: dict[str, Any] = {}
        if self.guidance and model.guidance is not None:
            arguments[self.guidance] = model.guidance
        if isinstance(model, WanBlueprint) and model.boundary and model.low_guidance is not None:
            arguments["guidance_scale_2"] = model.low_guidance
        if model.passes > 1 and (model.negative_prompt or self.asks_for_negative):
            arguments["negative_prompt"] = model.negative_prompt
        if isinstance(model, VideoBlueprint):
            arguments["num_frames"] = model.frames
        if self.text_length:
            arguments["max_sequence_length"] = model.text_tokens
        return arguments | dict(self.more)

    def prepare(self, model: PipelineBlueprint) -> str:
        """Returns lines that set what is no argument."""
        return "" if self.guidance else f"    pipe.guider.guidance_scale = {model.guidance!r}\n"


def _patches(shape: Shape) -> Shape:
    batch, channels, height, width = shape
    return batch, 4 * channels, height // 2, width // 2


def _frames_first(shape: Shape) -> Shape:
    batch, channels, frames, height, width = shape
    return batch, frames, channels, height, width


_UNPACKED = "unpack(result[0], *x.shape[-2:])"
_AS_ASKED = (("use_resolution_binning", False),)

FAMILIES = {
    "FluxPipeline": Family(to_pipe="pack(x)", from_pipe=_UNPACKED, packs=True, caches=True),
    "FluxPipeline in two passes": Family(
        guidance="true_cfg_scale", to_pipe="pack(x)", from_pipe=_UNPACKED, packs=True, asks_for_negative=True
    ),
    "ChromaPipeline": Family(to_pipe="pack(x)", from_pipe=_UNPACKED, packs=True),
    "QwenImagePipeline": Family(
        guidance="true_cfg_scale", to_pipe="pack(x)", from_pipe=_UNPACKED, packs=True, caches=True
    ),
    "Flux2Pipeline": Family(
        drawn="unpack(noise.flatten(2).mT, 2 * noise.shape[-2], 2 * noise.shape[-1])",
        to_pipe="pack(x).mT.unflatten(2, (x.shape[-2] // 2, x.shape[-1] // 2))",
        from_pipe=_UNPACKED,
        noise=_patches,
        packs=True,
    ),
    "StableDiffusion3Pipeline": Family(text_length=False),
    "ZImagePipeline": Family(),
    "SanaPipeline": Family(more=_AS_ASKED),
    "StableDiffusionXLPipeline": Family(text_length=False),
    "PixArtSigmaPipeline": Family(more=_AS_ASKED),
    "HunyuanVideoPipeline": Family(caches=True),
    "HunyuanVideo15Pipeline": Family(guidance="", text_length=False),
    "WanPipeline": Family(caches=True),
    "CogVideoXPipeline": Family(
        drawn="noise.transpose(1, 2)",
        to_pipe="x.transpose(1, 2)",
        from_pipe="result[0].transpose(1, 2)",
        noise=_frames_first,
        caches=True,
    ),
}
