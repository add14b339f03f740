"""``tuner studies``: what is in the folder of studies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tuner.cli._common import json_option, out_option, print_json, print_table, view_options
from tuner.errors import UserError, one_line
from tuner.tables import Cells

if TYPE_CHECKING:
    from tuner.tables import View

_EXAMPLES = """\b
Examples:
  tuner studies
  tuner studies --out /data/runs --json
"""


@click.command(help="Lists the studies in DIR, finished, unfinished, or broken.\n\n" + _EXAMPLES)
@out_option
@view_options
@json_option
def command(out: str, view: View, as_json: bool) -> None:
    """Lists name, model, budget and state, and the pick of those that are finished."""
    from studies import list_studies

    rows: list[dict[str, Any]] = []
    for study in list_studies(out):
        row: dict[str, Any] = {"study": study.name, "model": None, "budget": None, "state": study.state}
        row |= {"trials": None, "speedup": None}
        try:
            row |= {"model": study.settings.model, "budget": study.settings.budget}
            if study.state != "unfinished":
                result = study.result()
                row |= {"trials": result.trials, "speedup": result.pick.speedup}
        except UserError as error:  # one broken study hides no other
            click.echo(f"warning: {one_line(error)}", err=True)
        rows.append(row)
    if as_json:
        print_json(rows)
    elif rows:
        cells = Cells(list(rows[0]), [list(map(_cell, row.values())) for row in rows], key=["study", "state"])
        print_table(cells, view)
    else:
        click.echo(f"no studies in {out}", err=True)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}x"
    return "" if value is None else str(value)
