"""A Python script that needs diffusers alone: one pipeline call per stage, with a scheduler that shifts nothing.

With ``--snippet``, a few lines for presets of one stage, and for scale-wise distilled ones of one step per stage.
"""

from __future__ import annotations

import textwrap
from typing import Any, ClassVar

from tuner.exporters import _diffusers_source as source
from tuner.exporters._calls import Call, calls_of
from tuner.exporters._diffusers_caches import cache_config, cache_import
from tuner.exporters._diffusers_families import FAMILIES, Family, literal
from tuner.exporters._diffusers_snippet import snippet
from tuner.exporters.base import (
    Exporter,
    ExportOptions,
    RefusedError,
    known_family,
)
from tuner.models._diffusers import PipelineBlueprint
from tuner.models._variance_preserving import VariancePreservingBlueprint
from tuner.models._video import VideoBlueprint
from tuner.models.base import Blueprint
from tuner.models.cogvideox import CogVideoXBlueprint
from tuner.presets import Preset

_ARGUMENTS = '(ARGUMENTS | stage.get("arguments", {}))'


class _Diffusers(Exporter):
    target = "diffusers"
    suffixes: ClassVar[tuple[str, ...]] = (".py",)
    options: ClassVar[frozenset[str]] = frozenset({"snippet", "prompt", "seed"})
    carried: ClassVar[frozenset[str]] = frozenset({"reuse", "cache", "guidance", "guide"})

    def export(self, preset: Preset, blueprint: Blueprint | None, options: ExportOptions) -> str:
        self.check_fields(preset.schedule)
        model, family = known_family(
            self.target,
            FAMILIES,
            preset,
            blueprint,
            "the pipeline of {model} draws sound beside the picture, or takes latents in a way that is not known "
            "here",
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
        self.predicts_noise = isinstance(model, (VariancePreservingBlueprint, CogVideoXBlueprint))
        self.told = self.predicts_noise or self._rounds()
        self.kernels = {stage.resample for stage in self._resized()}
        self.arguments = family.arguments(model)
        parts = [self._parts(index) for index in range(len(self.schedule.stages))]
        self.cut = any(len(some) > 1 for some in parts)
        self.stages = [
            part | ({"number": number} if self.cut else {}) for number, some in enumerate(parts) for part in some
        ]
        self.corrected = any("corrections" in stage for stage in self.stages)
        if self.schedule.cache and not family.caches:
            raise RefusedError(
                "diffusers",
                0,
                f"the pipeline of {model.name} does not tell a cache which guidance pass a call is",
                "leave `cache` out",
            )

    def _rounds(self) -> bool:
        """Tells whether the network is asked at other levels than those of the schedule."""
        levels = [level for stage in self.schedule.stages for level in stage.sigmas[:-1]]
        return any(self.model.asked(level) != level for level in levels)

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
        imports += [cache_import(self.schedule.cache)] if self.schedule.cache else []
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
        lines = [
            f"MODEL = {literal(self.model.source)}",
            f"ARGUMENTS = {literal(self.arguments)}",
            "STAGES = [",
            *(line for stage in self.stages for line in ("    {", *_entries(stage), "    },")),
            "]",
        ]
        if (lora := self._lora()) is not None:
            lines.append(f"LORA, LORA_WEIGHT = {literal(lora[0])}, {lora[1]}")
        return "\n".join(lines)

    def _parts(self, index: int) -> list[dict[str, Any]]:
        """Returns the calls of the pipeline that run a stage: more than one where its guidance changes."""
        model, parts = self.model, []
        for k, (arguments, calls) in enumerate(self._calls(index)):
            part = self._size_of(index)
            if k > 0:
                part |= {"continues": True} | ({"resample": "nearest"} if self.kernels else {})
            part["sigmas"] = [calls[0].level, *(call.following for call in calls)]
            if arguments:
                part["arguments"] = arguments
            corrections = {
                done: [[one.back, one.clean, one.noise] for one in call.corrections]
                for done, call in enumerate(calls)
                if call.corrections
            }
            if corrections:
                part["corrections"] = corrections
            if isinstance(model, VariancePreservingBlueprint | CogVideoXBlueprint):
                asked = [model.timestep_and_signal(call.level) for call in calls]
                part |= {
                    "timesteps": [timestep for timestep, _ in asked],
                    "signals": [signal for _, signal in asked],
                }
            elif self.told:
                part["timesteps"] = [round(1000 * model.asked(call.level)) for call in calls]
            parts.append(part)
        return parts

    def _calls(self, index: int) -> list[tuple[dict[str, Any], list[Call]]]:
        """Groups the network calls of a stage by the arguments that they need beside those of the model."""
        found: list[tuple[dict[str, Any], list[Call]]] = []
        for call in calls_of("diffusers", self.schedule, index):
            known = self.model.called(self.schedule.stages[index], call.level)
            if known.guidance != self.model.guidance and not self.family.guidance:
                raise RefusedError(
                    "diffusers",
                    index,
                    f"the pipeline of {self.model.name} takes no guidance scale",
                    "leave `guidance` and `guide` out",
                )
            wanted = dict.fromkeys(self.arguments) | self.family.arguments(known)
            changed = {name: value for name, value in wanted.items() if self.arguments.get(name) != value}
            if not found or found[-1][0] != changed:
                found.append((changed, []))
            found[-1][1].append(call)
        return found

    def _size_of(self, index: int) -> dict[str, Any]:
        """Returns the size of a stage, and how its latent gets there."""
        stage = self.schedule.stages[index]
        height, width = self._size(stage.scale)
        shape = self.model.latent_shape((height, width))
        data: dict[str, Any] = {"height": height, "width": width, "noise": self.family.noise((1, *shape))}
        if index and stage in self._resized():
            data |= {"scale": stage.scale, "resample": stage.resample}
        elif self.kernels:
            data |= {"scale": stage.scale, "resample": "nearest"}
        return data

    def _scheduler(self) -> str:
        timesteps, velocity = "1000 * self.sigmas[:-1]", "model_output"
        if self.told:
            timesteps = 'torch.tensor(self.stage["timesteps"], dtype=torch.float32, device=device)'
        if self.predicts_noise:
            velocity = "self.velocity(model_output.float(), sample.float())"
        scheduler = source.LEVELS.format(
            timesteps=timesteps,
            velocity=velocity,
            made=", made" * self.corrected,
            keep=source.KEEP * self.corrected,
            corrected=source.CORRECTED * self.corrected,
        )
        if not self.predicts_noise:
            return scheduler
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
        number = 'stage["number"]' if self.cut else "number"
        return source.GENERATE.format(
            seed=f"stage_seed(seed, {number})" if several else "seed",
            dtype="torch.float32" if self.model.draws_float32 else f"pipe.{self.model.denoiser}.dtype",
            drawn=self.family.drawn,
            start="" if start == 1 else f"{start!r} * ",
            transition=transition if len(self.stages) > 1 else "",
            before=before,
            after=after,
            remembered=source.REMEMBERED * self.corrected,
            made=", made" * self.corrected,
            arguments=_ARGUMENTS if any("arguments" in stage for stage in self.stages) else "ARGUMENTS",
            to_pipe=self.family.to_pipe,
            from_pipe=self.family.from_pipe,
        )

    def _cached(self) -> tuple[str, str]:
        """Returns the lines that turn the cache on before a stage and off after it."""
        if self.schedule.cache is None:
            return "", ""
        config = cache_config(self.schedule.cache)
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
