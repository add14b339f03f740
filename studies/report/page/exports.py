"""Every way in which a schedule can be taken along: lines of code, and the formats of other tools."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from studies.records.export import preset_of
from tuner import exporters, models
from tuner.errors import UserError
from tuner.exporters import ExportOptions

if TYPE_CHECKING:
    from studies.records.results import Candidate, StudyResult
    from studies.records.study_folder import StudyFolder
    from tuner.models import Blueprint
    from tuner.presets import Preset

_DEFAULT_OUT = "runs"


def exports(candidate: Candidate, study: StudyFolder, result: StudyResult) -> list[dict[str, Any]]:
    """Writes a schedule in every form.

    Returns:
        For each form its ``name``, and either ``text`` and the name of its ``file`` (none for a line of code), or
        why it is ``refused``.
    """
    preset = preset_of(candidate, study, result)
    file = f"{preset.name}.yaml"
    python = f'tuner.generate(pipe, "a red fox", preset="{file}").images[0]'
    made: list[dict[str, Any]] = [
        {"name": "Python", "text": python},
        {"name": "Command line", "text": _command(candidate, study, file)},
    ]
    try:
        known = models.blueprint(preset.model)
        blueprint = preset.model_options.applied(known) if preset.model_options else known
    except UserError as error:
        return [*made, *({"name": name, "refused": str(error)} for name in exporters.available())]
    return [*made, *(_export(name, preset, blueprint) for name in exporters.available())]


def _export(name: str, preset: Preset, blueprint: Blueprint) -> dict[str, Any]:
    exporter = exporters.load(name)
    try:
        text = exporter.export(preset, blueprint, ExportOptions())
    except UserError as error:
        return {"name": name, "refused": str(error)}
    return {"name": name, "text": text, "file": preset.name + exporter.suffixes[0]}


def _command(candidate: Candidate, study: StudyFolder, file: str) -> str:
    out = str(study.path.parent)
    place = [] if out == _DEFAULT_OUT else ["--out", out]
    export = ["tuner", "export", study.name, "--pick", f"trial:{candidate.trial}", "-o", file, *place]
    return f"{shlex.join(export)} && {shlex.join(['tuner', 'sample', file, 'a red fox', '-o', 'fox.png'])}"
