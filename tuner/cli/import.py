"""``tuner import``: a workflow, a list of sigmas or a scheduler's configuration as a preset."""  # noqa: N999

from __future__ import annotations

from pathlib import Path

import click

from tuner.cli import _completion as complete
from tuner.cli._common import size_option

_EXAMPLES = """\b
Examples:
  tuner import workflow.json -o mine.yaml
  tuner import ComfyUI_00042_.png -o mine.yaml
  tuner import sigmas.txt --model flux -o mine.yaml
  tuner import scheduler_config.json --model flux --steps 28 -o mine.yaml
"""


@click.command(help="Makes a preset of what other tools have, where it is one.\n\n" + _EXAMPLES)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Preset file.")
@click.option(
    "--model",
    shell_complete=complete.models,
    help="Short name, hub id or local folder; by default what the file says.",
)
@size_option
@click.option("--steps", type=click.IntRange(1), help="Of a scheduler's configuration; by default the model's.")
def command(file: Path, output: Path, model: str | None, size: tuple[int, int] | None, steps: int | None) -> None:
    """Reads, writes and says where."""
    from tuner import importers, models, presets

    known = models.blueprint(model) if model else None
    click.echo(str(presets.save(importers.read(file, known, size, steps), output)))
