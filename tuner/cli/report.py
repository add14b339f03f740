"""``tuner report``: the Pareto front of a study, as a table, a picture or a file."""

from __future__ import annotations

from pathlib import Path

import click

from tuner.cli._common import json_option, out_option, print_json, stdout_console

_EXAMPLES = """\b
Examples:
  tuner report tiny-3x
  tuner report tiny-3x -o front.png
  tuner report tiny-3x -o report.md
"""


@click.command(help="Shows the Pareto front of a finished study.\n\n" + _EXAMPLES)
@click.argument("study")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Write it instead: .md, .png, .svg, .pdf or .json."
)
@out_option
@json_option
def command(study: str, output: Path | None, out: str, as_json: bool) -> None:
    """Prints the front, or writes it in the format that the file's name asks for."""
    from studies import open_study
    from studies.report.tables import front_table, pick_on_unseen_prompts, write_report

    result = open_study(out, study).result()
    if output is not None:
        click.echo(str(write_report(result, output)))
    elif as_json:
        print_json(result.model_dump(mode="json"))
    else:
        stdout_console().print(front_table(result))
        click.echo(pick_on_unseen_prompts(result))
