"""``tuner export``: a member of a study's front as a preset file."""

from __future__ import annotations

from pathlib import Path

import click

from tuner.cli._common import out_option

_EXAMPLES = """\b
Examples:
  tuner export tiny-3x --pick knee -o tiny-3x.yaml
  tuner export tiny-3x --pick best:image_reward -o best.yaml
  tuner export tiny-3x --pick trial:17 -o trial17.yaml
"""


@click.command(help="Writes a schedule of a finished study as a preset.\n\n" + _EXAMPLES)
@click.argument("study")
@click.option(
    "--pick",
    default="knee",
    show_default=True,
    help="knee, cheapest, best:OBJECTIVE or trial:N.",
)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="YAML file.")
@out_option
def command(study: str, pick: str, output: Path, out: str) -> None:
    """Chooses, writes and says where."""
    from studies import open_study, preset_of
    from studies.judge.pareto import pick as choose
    from tuner import presets

    folder = open_study(out, study)
    result = folder.result()
    candidates = [candidate for candidate in result.evaluated if candidate.stopped_at is None]
    chosen = choose(candidates, pick, folder.directions)
    click.echo(str(presets.save(preset_of(chosen, folder, result), output)))
    if chosen.trial != result.pick.trial:
        click.echo("note: only the study's own pick has scores on prompts that the search never saw", err=True)
