"""Noise levels alone: neutral JSON, or one line of numbers that other tools take.

``--text`` is what ComfyUI's ``ManualSigmas``, stable-diffusion.cpp's ``--sigmas`` and vLLM-Omni's ``sigmas`` read.
Schedulers of diffusers shift the levels that they are given; ``--for-scheduler`` writes those that they shift to
the wanted ones.
"""

from __future__ import annotations

import json
import math
from typing import Any, ClassVar

from tuner.exporters.base import (
    Exporter,
    ExportOptions,
    RefusedError,
    called_levels,
    fixed_point,
    known_model,
)
from tuner.models._diffusers import PipelineBlueprint
from tuner.models._flow_match import OTHER_GRIDS, constant_shift
from tuner.models._variance_preserving import VariancePreservingBlueprint
from tuner.models.base import Blueprint
from tuner.presets import Preset
from tuner.sigmas import shift_sigma

_TARGET = "A list of sigmas"
_SHIFTING = frozenset(
    f"{name}Pipeline"
    for name in (
        "Chroma",
        "Flux",
        "Flux2",
        "HunyuanVideo",
        "HunyuanVideo15",
        "LTX2",
        "QwenImage",
        "StableDiffusion3",
        "ZImage",
    )
)
"""Pipelines that take sigmas and hand them to ``FlowMatchEulerDiscreteScheduler``."""


class _Sigmas(Exporter):
    target = _TARGET
    suffixes: ClassVar[tuple[str, ...]] = (".json", ".txt")
    options: ClassVar[frozenset[str]] = frozenset({"text", "for_scheduler"})
    carried: ClassVar[frozenset[str]] = frozenset({"reuse", "upscaler", "guidance", "guide"})

    def needs_model(self, options: ExportOptions) -> bool:
        return options.text or options.for_scheduler

    def for_suffix(self, options: ExportOptions, suffix: str) -> ExportOptions:
        return options.model_copy(update={"text": options.text or suffix == ".txt"})

    def export(self, preset: Preset, blueprint: Blueprint | None, options: ExportOptions) -> str:
        self.check_fields(preset.schedule)
        if not options.text and not options.for_scheduler:
            return json.dumps(_neutral(preset), indent=2) + "\n"
        if len(preset.schedule.stages) > 1:
            raise RefusedError(self.target, 1, "one list holds one stage", "write JSON, or use format 'diffusers'")
        stage = preset.schedule.stages[0]
        if stage.guidance is not None or stage.guide is not None:
            raise RefusedError(self.target, 0, "a line of numbers has no guidance", "write JSON")
        levels = called_levels(self.target, preset.schedule, 0)
        model = known_model(preset, blueprint)
        if options.for_scheduler:
            levels = _before_the_scheduler(model, levels, preset)
        elif isinstance(model, VariancePreservingBlueprint):
            levels = _noise_to_signal(levels)
        if options.text:
            return fixed_point(self.target, 0, levels) + "\n"
        return json.dumps(_neutral(preset) | {"sigmas_for_scheduler": list(levels)}, indent=2) + "\n"


def _neutral(preset: Preset) -> dict[str, Any]:
    """Returns the preset as plain data in the words that other tools use."""
    schedule = preset.schedule
    stages: list[dict[str, Any]] = []
    for index, stage in enumerate(schedule.stages):
        levels = called_levels(_TARGET, schedule, index)
        resample = {"resample": stage.resample, "upscaler": stage.upscaler} if index else {}
        stages.append(
            {"scale": stage.scale, "steps": len(levels) - 1, "sigmas": list(levels)}
            | {"solver": schedule.solver_of(index)}
            | {key: value for key, value in resample.items() if value}
            | {key: value for key in ("guidance", "guide") if (value := getattr(stage, key)) is not None}
        )
    options = preset.model_options.of_images() if preset.model_options else {}
    alone = {"sigmas": stages[0]["sigmas"]} if len(stages) == 1 else {}
    return {
        "name": preset.name,
        "model": preset.model,
        "height": preset.height,
        "width": preset.width,
        "shift": 1,  # the levels are what runs: nothing is to shift them again
        "solver": schedule.solver,
        "steps": sum(len(stage["sigmas"]) - 1 for stage in stages),
        **options,
        **alone,
        "stages": stages,
    }


def _noise_to_signal(levels: tuple[float, ...]) -> tuple[float, ...]:
    """Returns k = sigma / (1 - sigma), which samplers of noise-predicting models call sigma.

    Raises:
        RefusedError: If the first level is noise alone, whose ratio has no bound.
    """
    if levels[0] == 1:
        raise RefusedError(
            _TARGET,
            0,
            "it starts from noise alone, and this model's samplers count in ratios of noise to image",
            "start at the model's own first level, as `tuner presets ays-sdxl-10` does",
        )
    return tuple(level / (1 - level) for level in levels)


def _before_the_scheduler(model: Blueprint, levels: tuple[float, ...], preset: Preset) -> tuple[float, ...]:
    """Returns the levels, without the final 0, that the model's own scheduler turns into the given ones.

    diffusers' ``FlowMatchEulerDiscreteScheduler`` shifts the list, stretches it so that it ends at
    ``shift_terminal`` where that is set, and appends 0.
    """
    config = model.scheduler
    if not isinstance(model, PipelineBlueprint) or model.pipeline_class not in _SHIFTING:
        raise RefusedError(_TARGET, 0, f"the pipeline of {model.name} takes no sigmas", "use format 'diffusers'")
    for option in (*OTHER_GRIDS, "use_beta_sigmas"):
        if config.get(option):
            raise RefusedError(
                _TARGET,
                0,
                f"the scheduler of {model.name} has {option!r} and replaces the list",
                "use format 'diffusers'",
            )
    wanted, terminal = levels[:-1], config.get("shift_terminal")
    if terminal and abs(wanted[-1] - terminal) > 1e-6:
        raise RefusedError(
            _TARGET,
            0,
            f"the scheduler of {model.name} stretches every list to end at {terminal} and 0, and this one has "
            f"{wanted[-1]:g} before 0",
            "use format 'diffusers'",
        )
    if config.get("use_dynamic_shifting"):
        mu = model.mu(len(wanted), (preset.height, preset.width))
        shift = mu if config.get("time_shift_type") == "linear" else math.exp(mu)
    else:
        shift = constant_shift(config)
    return tuple(shift_sigma(level, 1 / shift) for level in wanted)


EXPORTER = _Sigmas()
