"""``tuner presets``: the published methods that ship with the package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuner.cli import _completion as complete
from tuner.cli._common import json_option, print_json, print_table, view_options
from tuner.errors import UserError, unwritable
from tuner.tables import Cells

if TYPE_CHECKING:
    from tuner.presets import Preset
    from tuner.tables import View

_EXAMPLES = """\b
Examples:
  tuner presets
  tuner presets bottleneck-flux-3x
  tuner presets --plot presets.png
  tuner presets --schema > preset.schema.json   editors complete presets by it
"""


@click.command(help="Lists the shipped presets with their sources, or shows one.\n\n" + _EXAMPLES)
@click.argument("name", required=False, shell_complete=complete.presets)
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw stages and sigmas to a file.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of preset files and nothing else.")
@view_options
@json_option
def command(name: str | None, plot: Path | None, schema: bool, view: View, as_json: bool) -> None:
    """Lists all presets, prints one whole, or draws them; or prints their schema."""
    from tuner import presets

    if schema:
        print_json(presets.schema())
        return
    if plot is not None:
        _draw([presets.load(one) for one in ([name] if name else presets.available())], plot)
        click.echo(str(plot))
        return
    if name:
        preset = presets.load(name)
        click.echo(preset.model_dump_json(indent=2) if as_json else presets.to_yaml(preset), nl=as_json)
        return
    shipped = list(map(presets.load, presets.available()))
    rows = [
        {
            "name": preset.name,
            "model": preset.model,
            "source": preset.source,
            "tflops": preset.cost.tflops if preset.cost else None,
            "nfe": preset.cost.nfe if preset.cost else None,
            "speedup": preset.cost.speedup if preset.cost else None,
        }
        for preset in shipped
    ]
    if as_json:
        print_json(rows)
        return
    header = ["name", "model", "speedup", "source"]
    cells = Cells(
        header,
        [
            (preset.name, preset.model, f"{preset.cost.speedup:.2f}x" if preset.cost else "", preset.source or "")
            for preset in shipped
        ],
        key=header,
        prose=["source"],
    )
    print_table(cells, view)


def _draw(shown: list[Preset], path: Path) -> None:
    """Saves the picture in the format that the file's ending names."""
    from studies.report.schedule_figure import schedules_figure

    try:
        schedules_figure(shown).savefig(path, dpi=110)
    except OSError as error:
        raise unwritable("Picture", path, error) from error
    except ValueError as error:  # matplotlib's, for an ending that it does not know
        raise UserError(f"Picture {str(path)!r} has no known format; end it in .png, .svg or .pdf.") from error
