"""The runtime that a search is for: every schedule of the study is one that it carries exactly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from studies.plan.settings import SearchSettings
from tuner import exporters
from tuner.errors import UserError
from tuner.exporters import Exporter, ExportOptions
from tuner.models import Blueprint, ModelOptions, Size
from tuner.presets import Preset
from tuner.schedule import Schedule


@dataclass(frozen=True)
class Target:
    """A format of ``tuner export``, and the model that schedules are exported for.

    Attributes:
        name: The format's name.
        exporter: The format.
        model: The model, with the study's options applied.
        size: Output (height, width) in pixels.
        options: The study's model options, as a preset states them.
    """

    name: str
    exporter: Exporter
    model: Blueprint
    size: Size
    options: ModelOptions | None

    def refusal(self, schedule: Schedule) -> str | None:
        """Says why the target cannot carry a schedule exactly; None if it can."""
        preset = Preset(
            name="candidate",
            model=self.model.name,
            source="tuner search",
            height=self.size[0],
            width=self.size[1],
            schedule=schedule,
            model_options=self.options,
        )
        return self.exporter.refusal(preset, self.model, ExportOptions())

    def carries(self, schedule: Schedule) -> bool:
        """Whether the target carries a schedule exactly."""
        return self.refusal(schedule) is None

    def beside(self, path: Path) -> Path:
        """Returns where the export of a preset file goes: beside it, with the format's ending."""
        return path.with_suffix(self.exporter.suffixes[0])

    def save(self, preset: Preset, path: Path) -> None:
        """Exports a preset."""
        self.exporter.save(preset, self.model, ExportOptions(), path)


def target_of(settings: SearchSettings, model: Blueprint, size: Size) -> Target | None:
    """Finds the runtime that a search is for; None where it is for `tuner` itself.

    Args:
        settings: As the user gave them.
        model: The model, with the settings' options applied.
        size: Output (height, width) in pixels.

    Raises:
        UserError: If there is no such format, or if it does not carry the model's own sampler.
    """
    if settings.for_target is None:
        return None
    exporter = exporters.load(settings.for_target)
    target = Target(settings.for_target, exporter, model, size, settings.options.of_presets())
    if (reason := target.refusal(model.baseline(size))) is not None:
        raise UserError(f"A search for {settings.for_target} cannot be run with {model.name}: {reason}")
    return target
