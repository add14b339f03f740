"""`tuner`'s own format: what ``tuner sample`` and ``tuner.generate`` read."""

from __future__ import annotations

from typing import ClassVar

from tuner import presets
from tuner.exporters.base import Exporter, ExportOptions
from tuner.models.base import Blueprint
from tuner.presets import Preset


class _Yaml(Exporter):
    target = "tuner"
    suffixes: ClassVar[tuple[str, ...]] = (".yaml", ".yml")

    def needs_model(self, options: ExportOptions) -> bool:
        return False

    def export(self, preset: Preset, blueprint: Blueprint | None, options: ExportOptions) -> str:
        return presets.to_yaml(preset)


EXPORTER = _Yaml()
