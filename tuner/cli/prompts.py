"""``tuner prompts``: the prompt sets that ship with the package."""

from __future__ import annotations

import click

from tuner.cli import _completion as complete
from tuner.cli._common import json_option, print_json, print_table
from tuner.errors import unknown_name
from tuner.tables import Cells

_EXAMPLES = """\b
Examples:
  tuner prompts
  tuner prompts tiny > mine.txt
"""


@click.command(help="Lists the shipped prompt sets, or prints one.\n\n" + _EXAMPLES)
@click.argument("name", required=False, shell_complete=complete.prompt_sets)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """Lists all sets, or prints the prompts of one, line by line; search and held-out prompts take turns."""
    from studies.plan.prompts import shipped_sets

    sets = {shipped.name: shipped for shipped in shipped_sets()}
    if name is not None:
        if name not in sets:
            raise unknown_name("prompt set", name, sets)
        prompts = sets[name].prompts
        if as_json:
            print_json(list(prompts))
        else:
            click.echo("\n".join(prompts))
        return
    rows = [
        {
            "name": shipped.name,
            "prompts": len(shipped.prompts),
            "licence": shipped.license,
            "source": shipped.source,
        }
        for shipped in sets.values()
    ]
    if as_json:
        print_json(rows)
    else:
        header = list(rows[0])
        print_table(Cells(header, [list(map(str, row.values())) for row in rows], key=header, prose=["source"]))
