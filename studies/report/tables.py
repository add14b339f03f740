"""What a finished study looks like: tables for the terminal and for Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from studies.records.results import PROPOSED, Candidate, StudyResult
from tuner.errors import readable

if TYPE_CHECKING:
    from rich.table import Table

    from tuner.presets import Score
    from tuner.schedule import Schedule, Stage


def front_table(result: StudyResult) -> Table:
    """Makes the front a table for the terminal; the pick is marked and bold.

    Its scores are those of the search prompts, which chose the front and so flatter it; the caption says so, and
    that members were chosen by what is expected of them, as one may be beaten by another's scores.
    """
    from rich.table import Table

    header, rows = _cells(result, result.front)
    table = Table(
        title=f"Pareto front of {result.study}: {result.trials} trials on {result.model}",
        caption="chosen by expected scores; shown are those on the search prompts, quote those on unseen prompts",
    )
    for index, column in enumerate(header):
        numeric = column in ("TFLOPs", "speedup", "NFE", "s/image")
        table.add_column(column, justify="left" if index < 2 else "right", no_wrap=numeric, overflow="fold")
    for candidate, row in zip(result.front, rows, strict=True):
        table.add_row(*row, style="bold" if candidate.trial == result.pick.trial else None)
    return table


def pick_on_unseen_prompts(result: StudyResult) -> str:
    """Says in one line what the pick scores where nothing was chosen: the numbers to quote."""
    scores = ", ".join(f"{name} {score_text(score)}" for name, score in result.pick.held_out.items())
    return (
        f"pick: trial {result.pick.trial}, {result.pick.speedup:.2f}x fewer TFLOPs than the baseline; on prompts "
        f"that the search never saw: {scores}"
    )


def markdown(result: StudyResult) -> str:
    """Writes the study as Markdown: the pick on unseen prompts, the front, and the dearer references."""
    pick, baseline = result.pick, result.baseline
    scores = ", ".join(f"{markdown_text(name)} {mean.mean:.4g}" for name, mean in baseline.scores.items())
    timed = "" if baseline.seconds is None else f" and takes {baseline.seconds:.3g} s"
    parts = [
        f"# Study {markdown_text(result.study)}",
        f"Model {markdown_text(result.model)}, {result.trials} trials, {result.elapsed_s:.0f} s, "
        f"{result.tflops_spent:.4g} denoiser TFLOPs in all.",
        f"The baseline costs {baseline.tflops:.4g} TFLOPs and {baseline.nfe} network calls per image{timed}: "
        f"{scores}. Behind each score stands its paired difference to the baseline on the same prompts and noise, "
        "with the 95 % bootstrap interval of that difference.",
        f"## Pick: trial {pick.trial}, {pick.speedup:.2f}x",
        f"`{_code(result.preset)}` holds it: {shorthand(pick.schedule)}, {pick.tflops:.4g} TFLOPs.",
        markdown_table(
            ["objective", "search prompts", "prompts never seen"],
            [[name, score_text(score), score_text(pick.held_out[name])] for name, score in pick.scores.items()],
        ),
        "## Pareto front",
        "By what all results together lead to expect of each schedule. Scores are those on the search prompts, "
        "which chose these schedules: quote the pick's scores on prompts never seen.",
        markdown_table(*_cells(result, result.front)),
    ]
    if result.references:
        parts += ["## References off the front", markdown_table(*_cells(result, result.references))]
    return "\n\n".join(parts) + "\n"


def shorthand(schedule: Schedule) -> str:
    """Writes a schedule in a few characters, each stage as steps@scale: ``8@0.5 > 6@1 dpmpp-2m``.

    A stage names its solver unless it is Euler's, the number of steps that reuse a velocity, and its guidance.
    """
    return " > ".join(_stage(stage) for stage in schedule.resolved)


def _stage(stage: Stage) -> str:
    text = f"{stage.steps}@{stage.scale:.3g}"
    if stage.solver != "euler":
        text += f" {stage.solver}"
    if stage.reuse:
        text += f" -{len(stage.reuse)}"
    if stage.guidance is not None:
        text += f" g{stage.guidance:.3g}"
    if stage.guide is not None:
        text += f" in [{stage.guide[1]:.2g}, {stage.guide[0]:.2g}]"
    return text


def _cells(result: StudyResult, candidates: Sequence[Candidate]) -> tuple[list[str], list[list[str]]]:
    timed = ["s/image"] if result.baseline.seconds is not None else []
    header = ["trial", "steps@scale", "TFLOPs", "speedup", "NFE", *timed, *result.baseline.scores]
    rows = []
    for candidate in candidates:
        mark = " (pick)" if candidate.trial == result.pick.trial else ""
        origin = "" if candidate.label == PROPOSED else f" {candidate.label}"
        if candidate.stopped_at is not None:
            origin += f" (left after {candidate.stopped_at} prompts)"
        rows.append(
            [
                f"{candidate.trial}{origin}{mark}",
                shorthand(candidate.schedule),
                f"{candidate.tflops:.4g}",
                f"{candidate.speedup:.2f}x",
                str(candidate.nfe),
                *(f"{candidate.seconds:.3g}" for _ in timed),
                *(score_text(candidate.scores[name]) for name in result.baseline.scores),
            ]
        )
    return header, rows


def score_text(score: Score) -> str:
    """Writes a mean with its difference to the baseline and the interval of that difference."""
    low, high = score.ci95
    return f"{score.mean:.4g} ({score.delta:+.3g} [{low:+.3g}, {high:+.3g}])"


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
