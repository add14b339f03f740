"""A few lines of Python in the place of a script, for presets that a stock scheduler of diffusers runs."""

from __future__ import annotations

from typing import Any

from tuner.exporters._diffusers_families import Family, literal
from tuner.exporters.base import ExportOptions, RefusedError, called_levels
from tuner.models._diffusers import PipelineBlueprint
from tuner.presets import Preset

_TAKE_SIGMAS = frozenset(
    f"{name}Pipeline"
    for name in (
        "Chroma",
        "Flux",
        "Flux2",
        "HunyuanVideo",
        "HunyuanVideo15",
        "QwenImage",
        "Sana",
        "StableDiffusion3",
        "ZImage",
    )
)
"""Pipelines of flow models that take sigmas."""

_SPATIAL = frozenset({"StableDiffusion3Pipeline"})
"""Pipelines whose scheduler sees latents with a height and a width, and which take another size at the end."""

_SNIPPET = """import torch
from diffusers import {scheduler}, {pipeline}

pipe = {pipeline}.from_pretrained({source}, torch_dtype=torch.bfloat16)
pipe.to("cuda")
# {comment}
pipe.scheduler = {scheduler}({config})
{prepare}made = pipe(
    prompt={prompt},
    height={height},
    width={width},
    sigmas={sigmas},
    num_inference_steps={steps},
    generator=torch.Generator("cpu").manual_seed({seed}),
{arguments})
{save}
"""


def snippet(preset: Preset, model: PipelineBlueprint, family: Family, options: ExportOptions) -> str:
    """Writes a call of the stock pipeline.

    Args:
        preset: Of one stage, or of one step per stage as scale-wise distilled students have.
        model: Its model.
        family: How the pipeline takes guidance.
        options: Prompt and seed.

    Raises:
        RefusedError: If a call of the stock pipeline cannot run it.
    """
    schedule = preset.schedule
    if model.pipeline_class not in _TAKE_SIGMAS:
        raise _refused(0, f"the pipeline of {model.name} takes no sigmas")
    for index, stage in enumerate(schedule.stages):
        for level in stage.sigmas[:-1]:
            if model.asked(level) != level:
                raise _refused(
                    index, f"{model.name} asks its network at whole timesteps, and not at sigma {level:g}"
                )
    if (solver := schedule.solver_of(0)) != "euler":
        raise _refused(0, f"no stock scheduler runs solver {solver!r} on given sigmas")
    if any(stage.guidance is not None or stage.guide is not None for stage in schedule.stages):
        raise _refused(0, "a stage has guidance of its own")
    if schedule.cache:
        raise _refused(0, "a cache is turned on and off around a stage")
    if preset.model_options and preset.model_options.lora:
        lora, weight = preset.model_options.lora_and_weight()
        prepare = f'pipe.load_lora_weights({literal(lora)}, adapter_name="preset")\n'
        prepare += f'pipe.set_adapters(["preset"], [{weight!r}])\n'
    else:
        prepare = ""
    if len(schedule.stages) == 1:
        sigmas = called_levels("diffusers", schedule, 0)[:-1]
        stock = {
            "scheduler": "FlowMatchEulerDiscreteScheduler",
            "config": "",
            "comment": "By default it shifts nothing.",
        }
        height, width = preset.height, preset.width
    else:
        sigmas = _one_step_per_stage(preset, model)
        stock = _scale_wise(preset, model)
        height, width = model.stage_size((preset.height, preset.width), schedule.stages[0].scale)
    arguments = "".join(f"    {name}={literal(value)},\n" for name, value in family.arguments(model).items())
    return _SNIPPET.format(
        pipeline=model.pipeline_class,
        source=literal(model.source),
        prompt=literal(options.prompt),
        seed=options.seed,
        height=height,
        width=width,
        sigmas=list(sigmas),
        steps=len(sigmas),
        arguments=arguments,
        save='made.images[0].save("image.png")' if model.fps is None else "frames = made.frames[0]",
        prepare=prepare + family.prepare(model).lstrip(),
        **stock,
    )


def _one_step_per_stage(preset: Preset, model: PipelineBlueprint) -> tuple[float, ...]:
    """Returns the first level of every stage, where ``FlowMatchLCMScheduler`` runs the preset."""
    for index, stage in enumerate(preset.schedule.stages):
        if stage.steps > 1 or stage.sigmas[-1] != 0:
            raise _refused(index, "a call of a pipeline has one size, unless every stage is one step to 0")
        if index and stage.resample != "torch-bicubic":
            raise _refused(index, f"FlowMatchLCMScheduler has no kernel {stage.resample!r}, but 'torch-bicubic'")
    if model.pipeline_class not in _SPATIAL:
        raise _refused(1, f"the scheduler of {model.name} sees packed latents, which it cannot resize")
    return tuple(stage.sigmas[0] for stage in preset.schedule.stages)


def _scale_wise(preset: Preset, model: PipelineBlueprint) -> dict[str, Any]:
    """Returns the scheduler of scale-wise distilled students; its noise is another, and so is each image."""
    size = preset.height, preset.width
    sides = [model.latent_shape(model.stage_size(size, stage.scale))[1:] for stage in preset.schedule.stages]
    factors = [height / sides[0][0] for height, _ in sides[1:]]
    for index, (factor, wanted) in enumerate(zip(factors, sides[1:], strict=True), start=1):
        if tuple(round(factor * side) for side in sides[0]) != wanted:
            raise _refused(index, "its height and width grow by different factors")
    return {
        "scheduler": "FlowMatchLCMScheduler",
        "config": f'scale_factors={factors}, upscale_mode="bicubic"',
        "comment": "One step per size. It draws other noise than tuner does.",
    }


def _refused(stage: int, reason: str) -> RefusedError:
    return RefusedError("diffusers", stage, reason, "leave --snippet out")
