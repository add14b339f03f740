"""What the commands of ``tuner ablate`` share: options, and a table on the terminal, as Markdown and as JSON."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuner.cli import _completion as complete
from tuner.cli._common import add_options, json_option, print_json, print_table, say, size_option
from tuner.errors import unwritable
from tuner.tables import Cells

if TYPE_CHECKING:
    from studies.evaluate.ablations import Row


@dataclass(frozen=True)
class AblationTable:
    """Rows to print together.

    Attributes:
        key: Name of the rows in the JSON.
        title: Shown above.
        rows: The first is what the others are compared with, unless the explanation says otherwise.
        explanation: Shown below.
        digits: Decimals of scores.
    """

    key: str
    title: str
    rows: Sequence[Row]
    explanation: str
    digits: int = 3


def options(
    images: int, measured: str, sized: bool = True
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds the options of all ablations: the model, the prompts and their noise, the device and the output.

    Args:
        images: Default number of prompts to measure on.
        measured: Help of the option that changes it.
        sized: Whether there is a choice of the output's size.
    """
    made: list[Callable[..., Any]] = [
        click.option(
            "--model", required=True, shell_complete=complete.models, help="Short name, hub id or local folder."
        ),
        click.option(
            "--prompts", metavar="FILE", help="One prompt per line; by default the set that suits the model."
        ),
        click.option("--images", default=images, show_default=True, type=click.IntRange(2), help=measured),
        click.option(
            "--batch", default=16, show_default=True, type=click.IntRange(1), help="Images drawn at once."
        ),
        click.option(
            "--seed", default=0, show_default=True, type=click.IntRange(0), help="Noise seed of the first prompt."
        ),
        *([size_option] if sized else []),
        click.option("--device", help="Torch device; by default the first GPU, else the CPU."),
        click.option(
            "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Also write it as Markdown."
        ),
        json_option,
    ]
    return functools.partial(add_options, options=made)


def show(
    title: str,
    rows: Sequence[Row],
    explanation: str,
    about: dict[str, Any],
    output: Path | None,
    as_json: bool,
    digits: int = 3,
) -> None:
    """Prints one table of ablations; see `show_all`, and `AblationTable` for the other arguments."""
    show_all([AblationTable("rows", title, rows, explanation, digits)], about, output, as_json)


def show_all(tables: Sequence[AblationTable], about: dict[str, Any], output: Path | None, as_json: bool) -> None:
    """Prints tables of ablations, and writes them as Markdown if asked to.

    Args:
        tables: In order.
        about: What the JSON says besides the rows.
        output: File of the Markdown; None for none.
        as_json: Whether to print JSON alone.

    Raises:
        UserError: If the file cannot be written.
    """
    if output is not None:
        try:
            output.write_text("\n".join(line for table in tables for line in _markdown(table)))
        except OSError as error:
            raise unwritable("Table", output, error) from error
    if as_json:
        print_json(about | {table.key: [_plain(row) for row in table.rows] for table in tables})
        return
    for table in tables:
        header, cells = _cells(table.rows, table.digits)
        print_table(Cells(header, cells, key=header, title=table.title))
        say(table.explanation)


def _markdown(table: AblationTable) -> list[str]:
    header, cells = _cells(table.rows, table.digits)
    lines = [f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *cells)]
    return [f"# {table.title}", "", *lines, "", table.explanation, ""]


def _plain(row: Row) -> dict[str, Any]:
    scores = {name: score.model_dump(mode="json") for name, score in row.scores.items()}
    return {"name": row.name, "tflops": row.tflops, "scores": scores, "paper": dict(row.paper)}


def _cells(rows: Sequence[Row], digits: int) -> tuple[list[str], list[list[str]]]:
    names, papers = list(rows[0].scores), rows[0].paper
    number, signed = f".{digits}f", f"+.{digits}f"
    costs = [f"{row.tflops:.4g}" for row in rows]
    differ = len(set(costs)) > 1  # where all cost the same, the column says nothing
    cells = []
    for row, cost in zip(rows, costs, strict=True):
        line = [row.name, cost] if differ else [row.name]
        for name, score in row.scores.items():
            low, high = (f"{end:{signed}}" for end in score.ci95)
            line.append(f"{score.mean:{number}} {score.delta:{signed}} [{low}, {high}]")
            if name in papers:
                value, difference = row.paper.get(name, (None, None))
                line.append("" if value is None else f"{value:{number}} {difference:{signed}}")
        cells.append(line)
    columns = [column for name in names for column in ([name, "paper"] if name in papers else [name])]
    return ["", "TFLOPs", *columns] if differ else ["", *columns], cells
