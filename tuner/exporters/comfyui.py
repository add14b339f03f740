"""A ComfyUI workflow in API format, on stock nodes alone.

With explicit sigmas a model's shift plays no part, so that any levels are just other numbers. Latents are rescaled
linearly between samplers, with which every kernel commutes whose weights sum to 1. `_comfyui_sampling` says why
the samplers are exact.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from tuner.errors import UserError
from tuner.exporters._comfyui_families import FAMILIES, Family
from tuner.exporters._comfyui_graph import Graph, Link
from tuner.exporters._comfyui_kernels import KERNELS, SUBSTITUTES, inexact
from tuner.exporters._comfyui_sampling import Sampling
from tuner.exporters.base import (
    Exporter,
    ExportOptions,
    RefusedError,
    check_asked_levels,
    known_family,
)
from tuner.models._diffusers import PipelineBlueprint
from tuner.models._video import VideoBlueprint
from tuner.models.base import Blueprint
from tuner.models.wan2p1_1p3b import WanBlueprint
from tuner.presets import Preset

_TARGET = "ComfyUI"

_SMALLEST_SIDE = 8
"""``LatentUpscale`` makes no smaller latents."""


class _ComfyUI(Exporter):
    target = _TARGET
    suffixes: ClassVar[tuple[str, ...]] = (".json",)
    options: ClassVar[frozenset[str]] = frozenset({"substitute", "prompt", "seed", "unet", "clip", "vae", "lora"})
    carried: ClassVar[frozenset[str]] = frozenset({"reuse", "upscaler", "guidance", "guide"})

    def export(self, preset: Preset, blueprint: Blueprint | None, options: ExportOptions) -> str:
        self.check_fields(preset.schedule)
        model, family = known_family(
            self.target,
            FAMILIES,
            preset,
            blueprint,
            "this exporter knows no exact nodes for {model}, or its samplers count in other levels",
            "use format 'diffusers'",
        )
        if options.substitute is not None and options.substitute not in SUBSTITUTES:
            raise UserError(
                f"--substitute takes one of {', '.join(SUBSTITUTES)}, but got {options.substitute!r}; choose one."
            )
        return _Workflow(preset, model, family, options).build()


class _Workflow:
    """Builds the graph of one preset."""

    def __init__(self, preset: Preset, model: PipelineBlueprint, family: Family, options: ExportOptions):
        self.preset, self.model, self.family, self.options = preset, model, family, options
        self.schedule = preset.schedule
        self.graph = Graph()
        self.substituted: list[str] = []

    def build(self) -> str:
        """Returns the whole graph as text."""
        self.model.start(self.schedule.stages[0].sigmas[0])
        check_asked_levels(_TARGET, self.schedule, self.model)
        networks = self._networks()
        clip, self.vae = self._clip(), self.graph.add("VAELoader", vae_name=self.options.vae or self.family.vae)
        positive = self.graph.add("CLIPTextEncode", text=self.options.prompt, clip=clip)
        sampling = Sampling(
            self.graph, self.schedule, self.model, self.family, networks, positive, clip, self.options.seed
        )
        latent = self._empty()
        for index in range(len(self.schedule.stages)):
            latent = sampling.stage(index, self._resized(index, latent) if index else latent)
        self._save(self.graph.add("VAEDecode", samples=latent, vae=self.vae))
        return self.graph.to_json()

    def _networks(self) -> list[Link]:
        """Adds the loaders of the denoiser and of its LoRA."""
        name = Path(self.model.name).name
        usual = [f"{name}.safetensors"]
        if isinstance(self.model, WanBlueprint) and self.model.boundary:
            usual = [f"{name}-high-noise.safetensors", f"{name}-low-noise.safetensors"]
        files = self._files("unet", self.options.unet, usual)
        loaded = [self.graph.add("UNETLoader", unet_name=file, weight_dtype="default") for file in files]
        chosen = self.preset.model_options
        if chosen is None or chosen.lora is None:
            if self.options.lora is not None:
                raise UserError(f"Preset {self.preset.name!r} needs no LoRA; leave --lora out.")
            return loaded
        source, weight = chosen.lora_and_weight()
        stem = Path(source).name
        file = self.options.lora or (stem if stem.endswith(".safetensors") else f"{stem}.safetensors")
        return [
            self.graph.add("LoraLoaderModelOnly", model=one, lora_name=file, strength_model=weight)
            for one in loaded
        ]

    def _clip(self) -> Link:
        files = self._files("clip", self.options.clip, list(self.family.clip))
        names = {f"clip_name{i}": file for i, file in enumerate(files, start=1)}
        if len(files) == 1:
            names = {"clip_name": files[0]}
        kind = {"type": self.family.clip_type} if self.family.clip_type else {}
        return self.graph.add(self.family.clip_loader, **names, **kind)

    def _files(self, option: str, given: tuple[str, ...], usual: list[str]) -> list[str]:
        if given and len(given) != len(usual):
            count, times = (
                ("one file", "once") if len(usual) == 1 else (f"{len(usual)} files", f"{len(usual)} times")
            )
            raise UserError(
                f"{self.model.name} has {count} for --{option}, but got {len(given)}; give --{option} {times}, or "
                "not at all."
            )
        return list(given) or usual

    def _sides(self, index: int) -> tuple[int, int]:
        """Returns height and width of a stage's latent as ComfyUI has it."""
        size = self.model.stage_size((self.preset.height, self.preset.width), self.schedule.stages[index].scale)
        height, width = self.model.latent_shape(size)[-2:]
        return (height // 2, width // 2) if self.family.patches else (height, width)

    def _empty(self) -> Link:
        height, width = (side * self.family.pixels for side in self._sides(0))
        size: dict[str, Any] = {"width": width, "height": height, "batch_size": 1}
        if isinstance(self.model, VideoBlueprint):
            frames = self.model.latent_shape((height, width))[1]
            size["length"] = 4 * (frames - 1) + 1  # the node counts four frames per latent frame
        return self.graph.add(self.family.empty, **size)

    def _resized(self, index: int, latent: Link) -> Link:
        """Adds what brings the result of the stage before to this stage's size."""
        before, after = self._sides(index - 1), self._sides(index)
        kernel = self.schedule.stages[index].resample
        if before == after and kernel not in ("dct", "pixel"):
            return latent
        method = KERNELS.get(kernel)
        shrinks = any(new < old for old, new in zip(before, after, strict=True))
        reason = inexact(kernel, shrinks, self.family.patches)
        title = ""
        if reason:
            method = self._substitute(index, reason)
            title = f"not scored: {method} in the place of {kernel}"
            self.substituted.append(title)
            if method == "pixel":
                return self._by_pixels(index, latent, title)
        if before == after:
            return latent
        factor = after[1] / before[1]
        if tuple(round(side * factor) for side in before) == after:
            return self.graph.add("LatentUpscaleBy", title, samples=latent, upscale_method=method, scale_by=factor)
        if min(after) < _SMALLEST_SIDE:
            raise RefusedError(
                _TARGET,
                index,
                f"a latent of {after[0]}x{after[1]} is smaller than its resizing makes",
                f"use scales that give {_SMALLEST_SIDE} latent pixels or more",
            )
        height, width = (8 * side for side in after)  # the node divides by 8, whatever the autoencoder does
        size: dict[str, Any] = {"width": width, "height": height}
        return self.graph.add(
            "LatentUpscale", title, samples=latent, upscale_method=method, **size, crop="disabled"
        )

    def _substitute(self, index: int, reason: str) -> str:
        if self.options.substitute is None:
            near = (
                "--substitute pixel" if self.schedule.stages[index].resample == "pixel" else "--substitute bicubic"
            )
            exact = "use resample 'nearest', 'area' or 'torch-bicubic'"
            if self.family.patches:
                exact = "keep one size"
            raise RefusedError(_TARGET, index, reason, f"{exact}, or accept what was not scored with {near}")
        if self.options.substitute == "pixel" and self.schedule.stages[index - 1].sigmas[-1] > 0:
            raise RefusedError(
                _TARGET, index, "the stage before ends at a noisy latent, which has no pixels", "choose a kernel"
            )
        return self.options.substitute

    def _by_pixels(self, index: int, latent: Link, title: str) -> Link:
        stage = self.schedule.stages[index]
        height, width = self.model.stage_size((self.preset.height, self.preset.width), stage.scale)
        image = self.graph.add("VAEDecode", samples=latent, vae=self.vae)
        if stage.upscaler:
            upscaler = self.graph.add("UpscaleModelLoader", model_name=Path(stage.upscaler).name)
            image = self.graph.add("ImageUpscaleWithModel", upscale_model=upscaler, image=image)
        scaled = self.graph.add(
            "ImageScale",
            title,
            image=image,
            upscale_method="lanczos",
            width=width,
            height=height,
            crop="disabled",
        )
        return self.graph.add("VAEEncode", pixels=scaled, vae=self.vae)

    def _save(self, images: Link) -> None:
        """Adds the output node, whose title is the preset's name and says what was not scored."""
        title = "; ".join([self.preset.name, *dict.fromkeys(self.substituted)])
        if self.model.fps is None:
            self.graph.add("SaveImage", title, images=images, filename_prefix=self.preset.name)
            return
        self.graph.add(
            "SaveAnimatedWEBP",
            title,
            images=images,
            filename_prefix=self.preset.name,
            fps=float(self.model.fps),
            lossless=False,
            quality=90,
            method="default",
        )


EXPORTER = _ComfyUI()
