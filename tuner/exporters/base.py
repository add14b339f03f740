"""What an exporter is, and how it refuses what its target cannot carry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from tuner.errors import UserError
from tuner.models._diffusers import PipelineBlueprint
from tuner.models.base import Blueprint
from tuner.presets import Preset
from tuner.schedule import Schedule, Stage
from tuner.text_files import write

F = TypeVar("F")

LARGEST_SEED = 2**53 - 1
"""The largest whole number that every reader of JSON keeps as it is: a browser has no larger ones."""

_OF_STAGES, _OF_SCHEDULES = {"scale", "sigmas", "resample", "solver"}, {"stages", "solver"}
"""Fields that every exporter looks at itself."""


class ExportOptions(BaseModel):
    """What a user may choose about an export; each exporter takes some of them.

    Attributes:
        text: One line of numbers in the place of JSON.
        for_scheduler: Numbers that a scheduler of diffusers shifts to the wanted ones.
        snippet: A few lines in the place of a whole program.
        substitute: The kernel that takes the place of kernels that the target does not have.
        prompt: The prompt that the export is written with.
        seed: Noise seed of the image.
        unet: File names of the denoiser's networks.
        clip: File names of the text encoders.
        vae: File name of the autoencoder.
        lora: File name of the preset's LoRA.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: bool = False
    for_scheduler: bool = False
    snippet: bool = False
    substitute: str | None = None
    prompt: str = "a red fox"
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    unet: tuple[str, ...] = ()
    clip: tuple[str, ...] = ()
    vae: str | None = None
    lora: str | None = None


class RefusedError(UserError):
    """A target cannot carry a schedule exactly.

    Args:
        target: The target's name, as users know it.
        stage: Number of the stage, from 0; None where it concerns the whole preset.
        reason: Why it cannot; a clause.
        remedy: The nearest thing that it can carry; a clause.
    """

    def __init__(self, target: str, stage: int | None, reason: str, remedy: str):
        what = "this preset" if stage is None else f"stage {stage + 1}"
        super().__init__(f"{target} cannot carry {what} exactly: {reason}; {remedy}.")
        self.stage = stage


class Exporter(ABC):
    """Writes presets in the format of one target.

    An exporter writes what the target runs exactly as `tuner.sampling.sample` does, or it refuses. It substitutes
    nothing unless it is told to.

    Attributes:
        target: The target's name, as users know it.
        suffixes: Endings of its files, the usual one first.
        options: Names of the `ExportOptions` that it takes.
        carried: Optional fields of stages and schedules, such as ``cache``, that it carries; others are refused.
    """

    target: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    options: ClassVar[frozenset[str]] = frozenset()
    carried: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def export(self, preset: Preset, blueprint: Blueprint | None, options: ExportOptions) -> str:
        """Writes a preset as text, always the same text for the same arguments.

        Args:
            preset: What to write.
            blueprint: The preset's model with the preset's own options applied; None where ``needs_model`` says
                that it is not needed.
            options: How to write it.

        Raises:
            RefusedError: If the target cannot carry it exactly.
            UserError: If an option does not fit.
        """

    def save(self, preset: Preset, blueprint: Blueprint | None, options: ExportOptions, path: Path) -> None:
        """Writes a preset to a file, whose folder is created; takes what ``export`` takes.

        Raises:
            RefusedError: If the target cannot carry it exactly.
            UserError: If an option does not fit, or if the file cannot be written.
        """
        write(path, "Export", self.export(preset, blueprint, options).encode())

    def needs_model(self, options: ExportOptions) -> bool:
        """Whether ``export`` asks for a blueprint."""
        return True

    def for_suffix(self, options: ExportOptions, suffix: str) -> ExportOptions:
        """Returns the options with those that the ending of a file implies."""
        return options

    def refusal(self, preset: Preset, blueprint: Blueprint | None, options: ExportOptions) -> str | None:
        """Says why the target cannot carry a preset exactly; None if it can."""
        try:
            self.export(preset, blueprint, options)
        except RefusedError as error:
            return str(error)
        return None

    def check_options(self, name: str, options: ExportOptions) -> None:
        """Refuses options that this exporter does not take.

        Args:
            name: The format's name.
            options: What the user chose.

        Raises:
            UserError: If one is set that is not among ``options``.
        """
        for option in sorted(options.model_fields_set - self.options):
            flag = "--" + option.replace("_", "-")
            raise UserError(f"Format {name!r} has no use for {flag}; leave it out.")

    def check_fields(self, schedule: Schedule) -> None:
        """Refuses what a schedule asks for beside sizes, levels, kernels and solvers, unless it is ``carried``.

        Raises:
            RefusedError: If it asks for more.
        """
        for index, stage in enumerate(schedule.stages):
            for field in _in_use(stage) - _OF_STAGES - self.carried:
                raise RefusedError(self.target, index, f"it has no {field!r}", f"leave {field!r} out")
        for field in _in_use(schedule) - _OF_SCHEDULES - self.carried:
            raise RefusedError(self.target, None, f"it has no {field!r}", f"leave {field!r} out")


def _in_use(part: Stage | Schedule) -> set[str]:
    """Names the fields that are not at their default."""
    fields = type(part).model_fields.items()
    return {name for name, field in fields if getattr(part, name) != field.get_default(call_default_factory=True)}


def known_model(preset: Preset, blueprint: Blueprint | None) -> Blueprint:
    """Returns the blueprint.

    Raises:
        UserError: If there is none.
    """
    if blueprint is None:
        raise UserError(f"Preset {preset.name!r} is for {preset.model} model; name one with --model.")
    return blueprint


def known_family(
    target: str, families: Mapping[str, F], preset: Preset, blueprint: Blueprint | None, unknown: str, remedy: str
) -> tuple[PipelineBlueprint, F]:
    """Returns the blueprint, and what an exporter knows of its family.

    Args:
        target: The target's name, as users know it.
        families: What the exporter knows, by the class of the pipeline or ``exported_as``.
        preset: What is exported.
        blueprint: The preset's model.
        unknown: Why other families are refused; ``{model}`` stands for the model's name.
        remedy: What carries them.

    Raises:
        UserError: If there is no blueprint.
        RefusedError: If the exporter does not know the family.
    """
    model = known_model(preset, blueprint)
    if isinstance(model, PipelineBlueprint):
        family = families.get(model.exported_as or model.pipeline_class)
        if family is not None:
            return model, family
    raise RefusedError(target, None, unknown.format(model=model.name), remedy)


def check_asked_levels(target: str, schedule: Schedule, model: PipelineBlueprint) -> None:
    """Refuses models whose network is asked at other levels than those of the schedule.

    Pipelines with a multistep scheduler round timesteps down to whole numbers, and so does our sampler.

    Args:
        target: The target's name, as users know it.
        schedule: What is exported.
        model: The model that it is exported for.

    Raises:
        RefusedError: If the model rounds a level.
    """
    for index, stage in enumerate(schedule.stages):
        for level in stage.sigmas[:-1]:
            if model.asked(level) != level:
                raise RefusedError(
                    target,
                    index,
                    f"{model.name} asks its network at whole timesteps, and not at sigma {level:g}",
                    "use format 'diffusers'",
                )


def called_levels(target: str, schedule: Schedule, index: int) -> tuple[float, ...]:
    """Returns the noise levels of a stage without those whose step reuses the last velocity.

    Two steps of Euler's rule along one velocity are one step, so that nothing changes.

    Args:
        target: The target's name, as users know it.
        schedule: What is exported.
        index: Number of the stage, from 0.

    Raises:
        RefusedError: If the solver is another, or if reuse and amplitudes come together.
    """
    stage = schedule.stages[index]
    if stage.reuse and (schedule.solver_of(index) != "euler" or stage.amplitudes):
        raise RefusedError(
            target,
            index,
            "steps that reuse a velocity can be left out under Euler's rule alone, without amplitudes",
            "use solver 'euler' and no amplitudes, or no reuse",
        )
    return tuple(sigma for step, sigma in enumerate(stage.sigmas) if step not in stage.reuse)


def fixed_point(target: str, index: int, levels: tuple[float, ...]) -> str:
    """Writes noise levels on one line with nine decimals and no exponents, which not every reader knows.

    Args:
        target: The target's name, as users know it.
        index: Number of the stage, from 0.
        levels: Strictly decreasing levels.

    Raises:
        RefusedError: If two of them are the same with nine decimals.
    """
    numbers = [f"{level:.9f}" for level in levels]
    if len(set(numbers)) < len(numbers):
        raise RefusedError(target, index, "two of its levels agree in nine decimals", "merge them")
    return ", ".join(numbers)
