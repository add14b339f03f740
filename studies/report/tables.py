"""What a finished study looks like: tables for the terminal and for Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from objectives.base import loss_sign
from studies.judge.pareto import nondominated
from studies.records.results import PROPOSED, Candidate, StudyResult
from studies.report.ending import cost_lines, unseen_cells, verdicts
from studies.report.numbers import difference, score_text
from studies.report.shorthand import distinct_shorthands, shorthand
from tuner.errors import readable
from tuner.tables import Cells, View, layout

if TYPE_CHECKING:
    from rich.console import Group

__all__ = ["front_table", "markdown", "markdown_table", "score_text", "shorthand"]

_MARK = "*"
_BEATEN = (
    f"{_MARK} measured no better than a member that costs no more; on the front because more is expected of it"
)
_CHOSEN = "Scores are those on the search prompts, which chose these schedules. Quote scores on unseen prompts."


def front_table(result: StudyResult, width: int | None = None, view: View | None = None) -> Group:
    """Makes the front a table for the terminal; the pick is marked and bold.

    Its scores are those of the search prompts, which chose the front and so flatter it; the caption says so, and
    that members were chosen by what is expected of them, as one may be beaten by another's scores.

    Args:
        result: The outcome.
        width: Characters of a line; None for as many as it takes.
        view: The part to show; its rows are those next to the pick in cost.

    Raises:
        UserError: If the view names a column that the front does not have.
    """
    view = view or View()
    shown = _near_the_pick(result, view.top)
    header, rows = _cells(result, shown)
    beaten = any(_MARK in row[0] for row in rows)
    left = "" if len(shown) == len(result.front) else f"{len(shown)} of {len(result.front)} members. "
    cells = Cells(
        header,
        rows,
        key=header[: 3 + len(result.baseline.scores)],
        title=f"Pareto front of {result.study}: {_counted(result)} on {result.model}",
        caption=f"{left}{_CHOSEN}" + (f"\n{_BEATEN}" if beaten else ""),
        bold=[number for number, candidate in enumerate(shown) if candidate.trial == result.pick.trial],
    )
    return layout(cells, view, width)


def markdown(result: StudyResult) -> str:
    """Writes the study as Markdown: the pick on unseen prompts, the front, and the dearer references."""
    pick, baseline = result.pick, result.baseline
    scores = ", ".join(f"{markdown_text(name)} {mean.mean:.4g}" for name, mean in baseline.scores.items())
    timed = "" if baseline.seconds is None else f" and takes {baseline.seconds:.3g} s"
    parts = [
        f"# Study {markdown_text(result.study)}",
        f"Model {markdown_text(result.model)}, {result.trials} trials. {' '.join(cost_lines(result))}",
        f"The baseline costs {baseline.tflops:.4g} TFLOPs and {baseline.nfe} network calls per image{timed}: "
        f"{scores}. Behind each score stands its paired difference to the baseline on the same prompts and noise, "
        "with the 95 % bootstrap interval of that difference.",
        f"## Pick: trial {pick.trial}, {pick.speedup:.2f}x",
        f"`{_code(result.preset)}` holds it: {shorthand(pick.schedule)}, {pick.tflops:.4g} TFLOPs.",
        *([result.pick_note] if result.pick_note else []),
        markdown_table(
            ["objective", "search prompts", "prompts never seen"],
            [
                [name, score_text(score), score_text(pick.held_out[name]) if name in pick.held_out else ""]
                for name, score in pick.scores.items()
            ],
        ),
    ]
    if result.rivals:
        parts += ["On the prompts never seen, paired:", markdown_table(*unseen_cells(result))]
    parts += verdicts(result)
    header, rows = _cells(result, result.front)
    parts += [
        "## Pareto front",
        "By what all results together lead to expect of each schedule. Scores are those on the search prompts, "
        "which chose these schedules: quote the pick's scores on prompts never seen.",
        markdown_table(header, rows),
        *([_BEATEN.replace(_MARK, f"\\{_MARK}")] if any(_MARK in row[0] for row in rows) else []),
    ]
    if result.references:
        parts += ["## References off the front", markdown_table(*_cells(result, result.references))]
    return "\n\n".join(parts) + "\n"


def _counted(result: StudyResult) -> str:
    """Writes the number of trials, and how many of them the user did not ask for."""
    references = sum(one.label != PROPOSED for one in result.evaluated)
    return f"{result.trials} trials, {references} of them references,"


def _near_the_pick(result: StudyResult, top: int | None) -> list[Candidate]:
    """Keeps ``top`` members of the front around the pick."""
    if top is None or top >= len(result.front):
        return result.front
    trials = [candidate.trial for candidate in result.front]
    place = trials.index(result.pick.trial) if result.pick.trial in trials else 0
    first = min(max(0, place - top // 2), len(trials) - top)
    return result.front[first : first + top]


def _beaten(result: StudyResult, candidates: Sequence[Candidate]) -> set[int]:
    """Returns the trials whose measured scores another one dominates."""
    if not result.directions:
        return set()
    losses = [
        [one.cost, *(loss_sign(way) * one.scores[name].mean for name, way in result.directions.items())]
        for one in candidates
    ]
    kept = nondominated(losses, keep_equal=True)
    return {one.trial for one, is_kept in zip(candidates, kept, strict=True) if not is_kept}


def _cells(result: StudyResult, candidates: Sequence[Candidate]) -> tuple[list[str], list[list[str]]]:
    """Makes header and rows, the most important columns first."""
    timed = ["s/image"] if result.baseline.seconds is not None else []
    names = list(result.baseline.scores)
    header = ["trial", "speedup", "steps@scale"]
    header += [name if name in result.fidelity else f"{name} difference" for name in names]
    means = [name for name in names if name not in result.fidelity]
    header += [*timed, *(f"{name} mean" for name in means), "TFLOPs", "NFE"]
    members = {member.trial for member in result.front}
    beaten = _beaten(result, result.front)
    rows = []
    for candidate, schedule in zip(
        candidates, distinct_shorthands([one.schedule for one in candidates]), strict=True
    ):
        mark = " (pick)" if candidate.trial == result.pick.trial else ""
        mark += _MARK if candidate.trial in members & beaten else ""
        origin = "" if candidate.label == PROPOSED else f" {candidate.label}"
        if candidate.stopped_at is not None:
            origin += f" (stopped after {candidate.stopped_at} prompts)"
        rows.append(
            [
                f"{candidate.trial}{origin}{mark}",
                f"{candidate.speedup:.2f}x",
                schedule,
                *(difference(candidate.scores[name], name in result.fidelity) for name in names),
                *(f"{candidate.seconds:.3g}" for _ in timed),
                *(f"{candidate.scores[name].mean:.4g}" for name in means),
                f"{candidate.tflops:.4g}",
                str(candidate.nfe),
            ]
        )
    return header, rows


def markdown_text(text: str) -> str:
    """Escapes what would end a cell or a line, or become a tag, a link, an image or code in Markdown."""
    flat = " ".join(readable(text).split())
    flat = re.sub(r"([|`])", r"\\\1", flat).replace("<", "&lt;")
    return re.sub(r"(?<=[!\]])(?=[\[(])", r"\\", flat)


def _code(text: str) -> str:
    """Makes text fit between backticks."""
    return " ".join(readable(text).split()).replace("`", "'")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lays cells out as a Markdown table whose source lines up, too."""
    header, rows = list(map(markdown_text, header)), [list(map(markdown_text, row)) for row in rows]
    widths = [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    )
