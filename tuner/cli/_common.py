"""What several commands share: option types, the JSON switch, tables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

_PIPE_WIDTH = 160


class SizeType(click.ParamType[tuple[int, int]]):
    """An image size, HEIGHTxWIDTH or one number for a square."""

    name = "HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Parses ``1024x768`` or ``512``."""
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"(\d+)(?:x(\d+))?", str(value).strip().lower())
        if not found:
            self.fail(f"{value!r} is not a size; write HEIGHTxWIDTH in pixels, e.g. 1024x768, or 512.", param, ctx)
        height = int(found[1])
        return height, int(found[2] or height)


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
out_option = click.option(
    "--out", default="runs", show_default=True, metavar="DIR", help="Folder that holds the studies."
)
size_option = click.option("--size", type=SizeType(), help="Output size in pixels; by default the model's.")


def print_json(value: Any) -> None:
    """Prints plain data as JSON on stdout."""
    click.echo(json.dumps(value, indent=2))


def stdout_console() -> Console:
    """Makes a console on stdout that is wide enough for a table where it is no terminal, as in a pipe."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=_PIPE_WIDTH)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """Prints a table on stdout; numbers are the caller's strings, so that JSON and table never disagree."""
    from rich.table import Table

    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*map(str, row))
    stdout_console().print(table)
