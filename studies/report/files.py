"""A study's report as a file, in the format that the file's name asks for."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from studies.report.figures import front_figure
from studies.report.page import page
from studies.report.page.contents import Contents
from studies.report.tables import markdown, shorthand
from tuner.errors import UserError
from tuner.text_files import write

if TYPE_CHECKING:
    from studies.records.results import StudyResult
    from studies.records.study_folder import StudyFolder

_DPI = 160


def write_report(study: StudyFolder, path: str | os.PathLike[str]) -> Path:
    """Writes a report in the format that the file's suffix names.

    Args:
        study: The study; an unfinished one shows what it has so far.
        path: ``.html`` for the page; ``.png``, ``.svg`` or ``.pdf`` for a picture of the front; ``.md`` or
            ``.csv`` for tables; ``.json`` for the whole result.

    Returns:
        The path of the file.

    Raises:
        UserError: If the suffix is another one, if the study has nothing to show yet, or if the file cannot be
            written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _FORMATS:
        raise UserError(f"Report {str(path)!r} has no known format; end its name in one of {', '.join(_FORMATS)}.")
    write(path, "Report", _FORMATS[suffix](study))
    return path


def csv_table(result: StudyResult) -> str:
    """Writes every schedule that has scores as a row of a CSV table."""
    front = {candidate.trial for candidate in result.front}
    names = list(result.baseline.scores)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    ends = ("mean", "delta", "ci95.low", "ci95.high", "expected")
    writer.writerow(
        ["trial", "label", "schedule", "tflops", "speedup", "nfe", "seconds", "stopped_at", "front", "pick"]
        + [f"{name}.{end}" for name in names for end in ends]
    )
    for one in result.evaluated:
        row = [one.trial, one.label, shorthand(one.schedule), one.tflops, one.speedup, one.nfe, one.seconds]
        row += [one.stopped_at, one.trial in front, one.trial == result.pick.trial]
        for name in names:
            score = one.scores[name]
            row += [score.mean, score.delta, *score.ci95, one.expected.get(name)]
        writer.writerow(row)
    return text.getvalue()


def _picture(kind: str) -> Callable[[StudyFolder], bytes]:
    def draw(study: StudyFolder) -> bytes:
        content = io.BytesIO()
        front_figure(Contents(study).result, study.directions).savefig(content, format=kind, dpi=_DPI)
        return content.getvalue()

    return draw


_FORMATS: dict[str, Callable[[StudyFolder], bytes]] = {
    ".html": lambda study: page(study).encode(),
    ".png": _picture("png"),
    ".svg": _picture("svg"),
    ".pdf": _picture("pdf"),
    ".md": lambda study: markdown(Contents(study).result).encode(),
    ".csv": lambda study: csv_table(Contents(study).result).encode(),
    ".json": lambda study: (Contents(study).result.model_dump_json(indent=2) + "\n").encode(),
}
