"""A Python script that needs diffusers alone: one pipeline call per stage, with a scheduler that shifts nothing.

With ``--snippet``, a few lines for presets of one stage, and for scale-wise distilled ones of one step per stage.
"""

from __future__ import annotations

import textwrap
from typing import Any, ClassVar

from tuner.exporters import _diffusers_source as source
from tuner.exporters._diffusers_families import FAMILIES, Family, literal
from tuner.exporters._diffusers_snippet import snippet
from tuner.exporters.base import (
    Exporter,
    ExportOptions,
    RefusedError,
    called_levels,
    check_asked_levels,
    known_family,
)
from tuner.feature_cache import FeatureCache, FirstBlockCache, MagCache, TaylorSeerCache
from tuner.models._caching import ATTENTIONS
from tuner.models._diffusers import PipelineBlueprint
from tuner.models._variance_preserving import VariancePreservingBlueprint
from tuner.models._video import VideoBlueprint
from tuner.models.base import Blueprint
from tuner.models.cogvideox import CogVideoXBlueprint
from tuner.presets import Preset

_LEVELS = {"euler": source.LEVELS, "heun": source.HEUN_LEVELS}
"""The scheduler that the script walks a stage with, by our solver's name."""


class _Diffusers(Exporter):
    target = "diffusers"
    suffixes: ClassVar[tuple[str, ...]] = (".py",)
    options: ClassVar[frozenset[str]] = frozenset({"snippet", "prompt", "seed"})
    carried: ClassVar[frozenset[str]] = frozenset({"reuse", "cache"})

    def export(self, preset: Preset, blueprint: Blueprint | None, options: ExportOptions) -> str:
        self.check_fields(preset.schedule)
        model, family = known_family(
            self.target,
            FAMILIES,
            preset,
            blueprint,
            "this exporter does not know how the pipeline of {model} takes latents",
            "use `tuner sample`, or format 'sigmas'",
        )
        if options.snippet:
            return snippet(preset, model, family, options)
        return _Script(preset, model, family, options).text()


class _Script:
    """Puts a script together for one preset."""

    def __init__(self, preset: Preset, model: PipelineBlueprint, family: Family, options: ExportOptions):
        self.preset, self.model, self.family, self.options = preset, model, family, options
        self.schedule = preset.schedule
        solvers = {self.schedule.solver_of(index) for index in range(len(self.schedule.stages))}
        for index in range(len(self.schedule.stages)):
            if (solver := self.schedule.solver_of(index)) not in _LEVELS or len(solvers) > 1:
                raise RefusedError(
                    "diffusers",
                    index,
                    f"the script has no step rule {solver!r} beside the others",
                    f"use one solver of {', '.join(_LEVELS)} in all stages",
                )
        self.solver = solvers.pop()
        self.predicts_noise = isinstance(model, (VariancePreservingBlueprint, CogVideoXBlueprint))
        if self.predicts_noise and self.solver != "euler":
            raise RefusedError(
                "diffusers", 0, f"the script runs {model.name} by Euler's rule alone", "use solver 'euler'"
            )
        check_asked_levels("diffusers", self.schedule, model)
        self.kernels = {stage.resample for stage in self._resized()}
        if self.schedule.cache and not family.caches:
            raise RefusedError(
                "diffusers",
                0,
                f"the pipeline of {model.name} does not tell a cache which guidance pass a call is",
                "leave `cache` out",
            )

    def _resized(self) -> list[Any]:
        """Lists the stages after the first that change size, or by ``dct`` and ``pixel`` do more than that."""
        stages = self.schedule.stages
        sizes = [self._size(stage.scale) for stage in stages]
        special = ("dct", "pixel")
        return [
            stage
            for before, size, stage in zip(sizes, sizes[1:], stages[1:], strict=False)
            if before != size or stage.resample in special
        ]

    def _size(self, scale: float) -> tuple[int, int]:
        return self.model.stage_size((self.preset.height, self.preset.width), scale)

    def text(self) -> str:
        """Returns the whole script."""
        blocks = [
            self._head(),
            self._constants(),
            self._scheduler(),
            *self._helpers(),
            self._generate(),
            self._main(),
        ]
        return "\n\n\n".join(block.strip("\n") for block in blocks) + "\n"

    def _head(self) -> str:
        """Says what the script is, and imports what its blocks need."""
        pixels, lora = "pixel" in self.kernels, self._lora() is not None
        imports = ["import argparse"]
        imports += ["import hashlib"] * (len(self.schedule.stages) > 1)
        imports += ["import math"] * ("dct" in self.kernels)
        imports += ["from pathlib import Path"] * lora + [""]
        names = sorted({"FlowMatchEulerDiscreteScheduler", self.model.pipeline_class})
        imports += ["import torch", f"from diffusers import {', '.join(names)}"]
        imports += ["from diffusers.utils import export_to_video"] * (self.model.fps is not None)
        imports += [_cache_import(self.schedule.cache)] * (self.schedule.cache is not None)
        if lora:
            imports += [
                "from huggingface_hub import file_exists, snapshot_download",
                "from peft import LoraConfig",
            ]
            imports += ["from safetensors.torch import load_file"]
        imports += ["from PIL import Image"] * pixels
        needs = "diffusers and PEFT" if lora else "diffusers alone"
        return (
            f'"""{self.preset.name}: {_one_line(self.preset.source)}\n\n'
            f"Written by `tuner export`; needs {needs}: python FILE PROMPT --seed 0 -o FILE.\n"
            '"""\n\n' + "\n".join(imports)
        )

    def _lora(self) -> tuple[str, float] | None:
        options = self.preset.model_options
        return options.lora_and_weight() if options and options.lora else None

    def _constants(self) -> str:
        stages = [self._stage(index) for index in range(len(self.schedule.stages))]
        lines = [
            f"MODEL = {literal(self.model.source)}",
            f"ARGUMENTS = {literal(self.family.arguments(self.model))}",
            "STAGES = [",
            *(line for stage in stages for line in ("    {", *_entries(stage), "    },")),
            "]",
        ]
        if (lora := self._lora()) is not None:
            lines.append(f"LORA, LORA_WEIGHT = {literal(lora[0])}, {lora[1]}")
        return "\n".join(lines)

    def _stage(self, index: int) -> dict[str, Any]:
        stage, model = self.schedule.stages[index], self.model
        height, width = self._size(stage.scale)
        levels = called_levels("diffusers", self.schedule, index)
        data: dict[str, Any] = {
            "height": height,
            "width": width,
            "noise": self.family.noise((1, *model.latent_shape((height, width)))),
            "sigmas": list(levels),
        }
        if index and stage in self._resized():
            data |= {"scale": stage.scale, "resample": stage.resample}
        elif self.kernels:
            data |= {"scale": stage.scale, "resample": "nearest"}
        if isinstance(model, VariancePreservingBlueprint | CogVideoXBlueprint):
            asked = [model.timestep_and_signal(level) for level in levels[:-1]]
            data |= {"timesteps": [timestep for timestep, _ in asked], "signals": [signal for _, signal in asked]}
        return data

    def _scheduler(self) -> str:
        if not self.predicts_noise:
            return _LEVELS[self.solver].format(timesteps="1000 * self.sigmas[:-1]", velocity="model_output")
        scheduler = _LEVELS[self.solver].format(
            timesteps='torch.tensor(self.stage["timesteps"], device=device)',
            velocity="self.velocity(model_output.float(), sample.float())",
        )
        kind = self.model.scheduler.get("prediction_type", "epsilon")
        return scheduler + source.SCALED_INPUT.format(image=source.PREDICTED_IMAGE[kind])

    def _helpers(self) -> list[str]:
        """Returns the functions that ``generate`` calls, those that this preset needs."""
        helpers = [source.PACK] * self.family.packs
        helpers += [source.LANCZOS] * ("lanczos" in self.kernels)
        if self.kernels - {"dct", "pixel"}:
            video = source.RESIZE_VIDEO * isinstance(self.model, VideoBlueprint)
            helpers.append(source.RESIZE + video + self._kernels())
        helpers += [source.DCT] * ("dct" in self.kernels)
        if "pixel" in self.kernels:
            helpers.append(self._pixels())
        helpers += [source.STAGE_SEED] * (len(self.schedule.stages) > 1)
        return helpers + [source.LORA.format(denoiser=self.model.denoiser)] * (self._lora() is not None)

    def _kernels(self) -> str:
        """Returns the end of ``resize``: Lanczos, what PyTorch has, or either by name."""
        sharp = source.RESIZE_LANCZOS if "lanczos" in self.kernels else ""
        if not self.kernels - {"dct", "pixel", "lanczos"}:
            return sharp
        chosen = '    if kernel == "lanczos":\n' + textwrap.indent(sharp, "    ") if sharp else ""
        return chosen + source.RESIZE_KERNELS

    def _pixels(self) -> str:
        if self.model.pipeline_class != "FluxPipeline":
            index = next(i for i, stage in enumerate(self.schedule.stages) if i and stage.resample == "pixel")
            raise RefusedError(
                "diffusers", index, f"{self.model.name} cannot encode images here", "use another `resample`"
            )
        return source.PIXEL

    def _generate(self) -> str:
        several = len(self.schedule.stages) > 1
        resized = "x"
        if self.kernels - {"dct", "pixel"}:
            resized = 'resize(x, noise.shape[-2:], stage["resample"])'
        if "pixel" in self.kernels:
            by_pixels = 'by_pixels(pipe, x, stage["height"], stage["width"])'
            resized = f'({by_pixels} if stage["resample"] == "pixel" else {resized})'
        transition = source.EXPANSION * ("dct" in self.kernels) + source.TRANSITION.format(resized=resized)
        start = self.model.start(self.schedule.stages[0].sigmas[0])
        before, after = self._cached()
        return source.GENERATE.format(
            seed="stage_seed(seed, number)" if several else "seed",
            dtype="torch.float32" if self.model.draws_float32 else f"pipe.{self.model.denoiser}.dtype",
            drawn=self.family.drawn,
            start="" if start == 1 else f"{start!r} * ",
            transition=transition if several else "",
            before=before,
            after=after,
            calls='len(stage["sigmas"]) - 1' if self.solver == "euler" else '2 * len(stage["sigmas"]) - 2',
            to_pipe=self.family.to_pipe,
            from_pipe=self.family.from_pipe,
        )

    def _cached(self) -> tuple[str, str]:
        """Returns the lines that turn the cache on before a stage and off after it."""
        if self.schedule.cache is None:
            return "", ""
        config = _cache_config(self.schedule.cache)
        network = f"pipe.{self.model.denoiser}"
        return (
            f"            {network}.enable_cache({config})\n",
            f"            {network}.disable_cache()\n",
        )

    def _main(self) -> str:
        prepare = "    load_lora(pipe)\n" * (self._lora() is not None) + self.family.prepare(self.model)
        video = self.model.fps is not None
        return source.MAIN.format(
            prompt=literal(self.options.prompt),
            seed=self.options.seed,
            output=literal("video.mp4" if video else "image.png"),
            pipeline=self.model.pipeline_class,
            prepare=prepare,
            save=f"export_to_video(made.frames[0], chosen.output, fps={self.model.fps})"
            if video
            else "made.images[0].save(chosen.output)",
        )


def _cache_import(cache: FeatureCache | None) -> str:
    names = {"first_block": "FirstBlockCache", "taylorseer": "TaylorSeerCache", "mag": "MagCache"}
    return f"from diffusers import {names.get(cache.kind if cache else '', 'PyramidAttentionBroadcast')}Config"


def _cache_config(cache: FeatureCache) -> str:
    """Writes diffusers' configuration of a cache as `tuner.models._caching` makes it."""
    sigma = "lambda: float(pipe.scheduler.sigmas[pipe.scheduler.done])"
    if isinstance(cache, FirstBlockCache):
        return f"FirstBlockCacheConfig(threshold={cache.threshold!r})"
    if isinstance(cache, TaylorSeerCache):
        attentions = None if cache.lite else [ATTENTIONS]
        return (
            f"TaylorSeerCacheConfig(cache_interval={cache.interval}, disable_cache_before_step={cache.warmup}, "
            f"max_order={cache.order}, taylor_factors_dtype=pipe.transformer.dtype, "
            f"cache_identifiers={attentions!r}, use_lite_mode={cache.lite})"
        )
    if isinstance(cache, MagCache):
        ratios = [list(pair) for pair in cache.ratios]
        nearest = f"min({ratios!r}, key=lambda pair: abs(pair[0] - sigma))[1]"
        return (
            f"MagCacheConfig(threshold={cache.threshold!r}, max_skip_steps={cache.max_skip}, "
            f"retention_ratio={cache.retention!r}, num_inference_steps=len(stage['sigmas']) - 1, "
            f"mag_ratios=torch.tensor([{nearest} for sigma in stage['sigmas'][:-1]], dtype=torch.float64))"
        )
    between = tuple(cache.between)
    return (
        f"PyramidAttentionBroadcastConfig(spatial_attention_block_skip_range={cache.spatial}, "
        f"cross_attention_block_skip_range={cache.cross}, spatial_attention_timestep_skip_range={between}, "
        f"cross_attention_timestep_skip_range={between}, current_timestep_callback={sigma})"
    )


def _entries(stage: dict[str, Any]) -> list[str]:
    """Writes the entries of a stage, long lists on several lines."""
    return [
        line
        for key, value in stage.items()
        for line in textwrap.wrap(
            f'"{key}": {literal(value)},', 110, initial_indent=" " * 8, subsequent_indent=" " * 12
        )
    ]


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace('"', "'").replace("\\", "/")


EXPORTER = _Diffusers()
