"""``tuner presets``: the published methods that ship with the package."""

from __future__ import annotations

import click

from tuner.cli._common import json_option, print_json, print_table

_EXAMPLES = """\b
Examples:
  tuner presets
  tuner presets bottleneck-flux-3x
"""


@click.command(help="Lists the shipped presets with their sources, or shows one.\n\n" + _EXAMPLES)
@click.argument("name", required=False)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """Lists all presets, or prints one whole."""
    from tuner import presets

    if name:
        preset = presets.load(name)
        click.echo(preset.model_dump_json(indent=2) if as_json else presets.to_yaml(preset), nl=as_json)
        return
    rows = [
        {
            "name": preset.name,
            "model": preset.model,
            "source": preset.source,
            "speedup": preset.cost.speedup if preset.cost else None,
        }
        for preset in map(presets.load, presets.available())
    ]
    if as_json:
        print_json(rows)
        return
    print_table(
        ["name", "model", "speed-up", "source"],
        [
            (row["name"], row["model"], f"{row['speedup']:.2f}x" if row["speedup"] else "-", row["source"])
            for row in rows
        ],
    )
