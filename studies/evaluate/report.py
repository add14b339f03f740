"""Shows a finished evaluation: tables for the terminal and Markdown, and images side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from studies.plan.specs import fidelity_objectives
from studies.report.figures import contact_sheet
from studies.report.numbers import difference
from studies.report.tables import markdown_table, shorthand
from tuner.tables import Cells

if TYPE_CHECKING:
    from pathlib import Path

    from studies.evaluate.results import Against, EvalResult, Evaluated
    from studies.judge.noninferiority import NonInferiority
    from studies.records.folder import Folder
    from tuner.presets import Score

_SHOWN_PROMPTS = 6
_LABEL_WIDTH = 24  # characters of a row's label
_HEAD_WIDTH = 14  # and of a column's

HOW_TO_READ = (
    "Differences are paired, prompt by prompt on the same noise, with their 95 % bootstrap interval over prompts. "
    "'at most' is what is lost against the baseline at most, with 95 % confidence, and whether that is within the "
    "margin."
)


def tables(result: EvalResult) -> list[Cells]:
    """Makes one table per objective for the terminal."""
    return [_table(result, name) for name in objective_names(result)]


def _table(result: EvalResult, name: str) -> Cells:
    header, rows = _cells(result, name)
    against = f"against {result.baseline}"
    key = ("preset", "speedup", against, "at most", *(() if against in header else ("mean",)))
    return Cells(
        header,
        rows,
        key=[title for title in header if title.startswith(key)],
        title=f"{name}, {result.model}: {_sample(result)}",
    )


def markdown(result: EvalResult) -> str:
    """Writes the evaluation as Markdown."""
    height, width = result.size
    listed = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    parts = [
        f"# Presets on {result.model}",
        f"{_sample(result)}, at {height}x{width}, against {result.baseline}. {HOW_TO_READ}",
    ]
    for name in objective_names(result):
        parts += [f"## {name}", markdown_table(*_cells(result, name))]
    failed = [f"- {row.name}: {row.failure}" for row in result.rows if row.failure]
    if failed:
        parts += ["## Failed", "\n".join(failed)]
    schedules = [f"- {row.name}: {_what_ran(row)}" for row in result.rows]
    parts += [
        "## What ran",
        "\n".join(schedules),
        f"Objectives {', '.join(result.objectives)}; weights {result.weights}; prompts and noise {result.images}; "
        f"batches of {result.chunk}; {listed}.",
        "![images](images.png)",
    ]
    return "\n\n".join(parts) + "\n"


def write_files(result: EvalResult, folder: Folder, prompts: Sequence[str]) -> list[Path]:
    """Writes ``result.json``, ``result.md`` and, where images were kept, ``images.png``.

    Args:
        result: The evaluation.
        folder: Folder of the evaluation, with its images.
        prompts: The prompts of the kept images.
    """
    written = [
        folder.write("result.json", result.model_dump_json(indent=2) + "\n"),
        folder.write("result.md", markdown(result)),
    ]
    return written + _write_grid(result, folder, prompts[:_SHOWN_PROMPTS])


def _what_ran(row: Evaluated) -> str:
    options = {} if row.model_options is None else row.model_options.of_images()
    own = "".join(f", {name} {value}" for name, value in options.items())
    return f"{shorthand(row.schedule)} (steps@scale){own}, `{row.schedule.content_hash}`"


def objective_names(result: EvalResult) -> list[str]:
    """The plain names of the objectives, in order."""
    return next((list(row.means) for row in result.rows if row.means), [])


def _write_grid(result: EvalResult, folder: Folder, prompts: Sequence[str]) -> list[Path]:
    """Lays out one row per prompt and one column per schedule."""
    from PIL import Image

    kept = [(row, folder.images(row.key)[: len(prompts)]) for row in result.rows]
    shown = [(row, paths) for row, paths in kept if len(paths) == len(prompts)]
    if not shown:
        return []
    columns = [textwrap.fill(f"{row.name} {row.speedup:.2f}x", _HEAD_WIDTH) for row, _ in shown]
    rows = []
    for index, prompt in enumerate(prompts):
        images = []
        for _, paths in shown:
            with Image.open(paths[index]) as image:
                images.append(image.convert("RGB"))
        rows.append((textwrap.fill(prompt, _LABEL_WIDTH, max_lines=5), images))
    path = folder.path / "images.png"
    contact_sheet(rows, columns).save(path)
    return [path]


def _sample(result: EvalResult) -> str:
    seeds = f", {result.seeds} seeds each" if result.seeds > 1 else ""
    return f"{result.prompts} prompts of {result.prompt_set}{seeds}"


def _cells(result: EvalResult, name: str) -> tuple[list[str], list[list[str]]]:
    """Makes header and rows; leaves out empty columns."""
    margin = _margin(result, name)
    header = ["preset", "speedup", f"against {result.baseline}"]
    header += [f"at most (margin {margin})" if margin else "at most"]
    header += ["against plain steps at its cost", "mean", "against the next dearer", "NFE", "TFLOPs", "s/image"]
    rows = [
        [
            row.name,
            f"{row.speedup:.2f}x",
            *_judged(row, name, mean_only=name in fidelity_objectives(result.objectives)),
            str(row.nfe),
            f"{row.tflops:.4g}",
            "" if row.seconds is None else f"{row.seconds:.3g}",
        ]
        for row in result.rows
    ]
    filled = [index for index in range(len(header)) if any(row[index] for row in rows)]
    return [header[index] for index in filled], [[row[index] for index in filled] for row in rows]


def _judged(row: Evaluated, name: str, mean_only: bool) -> list[str]:
    """Writes what is known of one objective; of one that compares with the baseline's images, the mean."""
    if row.failure is not None:
        return ["failed", "", "", "", ""]
    return [
        "" if mean_only else _difference(row.baseline.get(name)),
        "" if mean_only else _claim(row.non_inferior.get(name)),
        _against(row.plain, name),
        f"{row.means[name]:.4g}",
        _against(row.dearer, name),
    ]


def _margin(result: EvalResult, name: str) -> str | None:
    claims = (row.non_inferior.get(name) for row in result.rows)
    return next((claim.margin for claim in claims if claim is not None), None)


def _difference(score: Score | None) -> str:
    return "" if score is None else difference(score)


def _claim(claim: NonInferiority | None) -> str:
    if claim is None:
        return ""
    within = {True: "within", False: "not within", None: "mean may be 0"}[claim.holds]
    return f"{max(0.0, claim.most_lost):.3g}: {within}"


def _against(other: Against | None, name: str) -> str:
    return "" if other is None else f"{other.name}: {_difference(other.scores[name])}"
