"""Every way in which a schedule can be taken along: lines of code, and the formats of other tools."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from studies.records.export import preset_of
from tuner import exporters
from tuner.errors import UserError
from tuner.exporters import ExportOptions

if TYPE_CHECKING:
    from studies.records.results import Candidate, StudyResult
    from studies.records.study_folder import StudyFolder
    from tuner.exporters import Exporter
    from tuner.models import Blueprint
    from tuner.presets import Preset

_DEFAULT_OUT = "runs"


def exports(
    candidates: Iterable[Candidate], study: StudyFolder, result: StudyResult, blueprint: Blueprint | None
) -> dict[int, list[dict[str, Any]]]:
    """Writes schedules in every form.

    Args:
        candidates: The schedules.
        study: Their study.
        result: Its outcome.
        blueprint: Its model, with its options applied; None where it is not to be had here.

    Returns:
        For each trial its forms: each has a ``name``, and either ``text`` and the name of its ``file`` (none for a
        line of code), or why it is ``refused``.
    """
    formats = {name: exporters.load(name) for name in exporters.available()}
    made = {}
    for candidate in candidates:
        preset = preset_of(candidate, study, result)
        file = f"{preset.name}.yaml"
        made[candidate.trial] = [
            {"name": "Python", "text": f'tuner.generate(pipe, "a red fox", preset="{file}").images[0]'},
            {"name": "Command line", "text": _command(candidate, study, file)},
            *({"name": name} | _export(exporter, preset, blueprint) for name, exporter in formats.items()),
        ]
    return made


def _export(exporter: Exporter, preset: Preset, blueprint: Blueprint | None) -> dict[str, str]:
    try:
        text = exporter.export(preset, blueprint, ExportOptions())
    except UserError as error:
        return {"refused": str(error)}
    return {"text": text, "file": preset.name + exporter.suffixes[0]}


def _command(candidate: Candidate, study: StudyFolder, file: str) -> str:
    out = str(study.path.parent)
    place = [] if out == _DEFAULT_OUT else ["--out", out]
    export = ["tuner", "export", study.name, "--pick", f"trial:{candidate.trial}", "-o", file, *place]
    return f"{shlex.join(export)} && {shlex.join(['tuner', 'sample', file, 'a red fox', '-o', 'fox.png'])}"
