"""``tuner report``: a study as a table, a page, a picture or a file, and what people voted on its page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuner.cli import _completion as complete
from tuner.cli._common import (
    json_option,
    out_option,
    print_json,
    print_study,
    print_table,
    view_options,
)

if TYPE_CHECKING:
    from studies.records.study_folder import StudyFolder
    from tuner.tables import View

_EXAMPLES = """\b
Examples:
  tuner report tiny-3x
  tuner report tiny-3x -o report.html        images, exports and blind voting
  tuner report tiny-3x --columns trial,speedup,clip
  tuner report tiny-3x -o front.png
  tuner report running-study                 of what is finished so far
  tuner report tiny-3x --votes votes-tiny-3x.json
"""


@click.command(help="Shows the Pareto front of a study.\n\n" + _EXAMPLES)
@click.argument("study", shell_complete=complete.studies)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Write it instead: .html, .png, .svg, .pdf, .md, .csv or .json.",
)
@click.option(
    "--votes",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Print win rates of votes that were saved on the page; may be repeated.",
)
@out_option
@view_options
@json_option
def command(
    study: str,
    output: Path | None,
    votes: tuple[Path, ...],
    out: str,
    view: View,
    as_json: bool,
) -> None:
    """Prints the front or the votes, or writes a report in the format that the file's name asks for."""
    from studies import open_study
    from studies.report.files import write_report
    from studies.report.page.contents import Contents
    from tuner.errors import UserError

    folder = open_study(out, study)
    if votes:
        if output is not None:
            raise UserError(f"--votes prints win rates and writes no {str(output)!r}; leave out -o or --votes.")
        _print_votes(folder, votes, view, as_json)
    elif output is not None:
        click.echo(str(write_report(folder, output)))
    elif as_json:
        print_json(Contents(folder).result.model_dump(mode="json"))
    else:
        print_study(Contents(folder).result, view)


def _print_votes(folder: StudyFolder, files: tuple[Path, ...], view: View, as_json: bool) -> None:
    from studies.report.page.contents import Contents
    from studies.report.page.votes import read_votes, tallies, votes_table

    counted = tallies(read_votes(folder, files))
    cells = votes_table(Contents(folder).result, counted)
    if as_json:
        print_json([tally.model_dump(mode="json") for tally in counted])
    else:
        print_table(cells, view)
