"""``tuner export``: a preset, or a member of a study's front, in the format of another tool."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuner.cli import _completion as complete
from tuner.cli._common import out_option

if TYPE_CHECKING:
    from tuner.exporters import Exporter, ExportOptions
    from tuner.models import Blueprint
    from tuner.presets import Preset
    from tuner.schedule import Schedule

KNOWLEDGE = "knowledge"
"""The format of a whole study; all others are of a schedule."""

_EXAMPLES = """\b
Examples:
  tuner export tiny-3x -o tiny-3x.yaml
  tuner export tiny-3x --pick best:image_reward -o best.yaml
  tuner export tiny-3x --pick trial:17 -o trial17.yaml
  tuner export ralu-flux-4x --format comfyui -o ralu.json
  tuner export mine.yaml -o mine.py              a script that needs diffusers
  tuner export mine.yaml --format sigmas --text       a line for ManualSigmas
  tuner export tiny-3x --format knowledge -o k.json   for --learn-from
"""


@click.command(
    help="Writes a schedule for another tool, exactly or not at all.\n\n"
    "SOURCE is a study, a preset file, the name of a shipped preset, or plain:N with --model.\n\n" + _EXAMPLES
)
@click.argument("source", shell_complete=complete.studies_and_presets)
@click.option(
    "--pick",
    help="Of a study: knee, cheapest, best:OBJECTIVE, within:MARGIN or trial:N; by default its own pick.",
)
@click.option(
    "--format",
    "name",
    metavar="NAME",
    help="comfyui, diffusers, mlflow, sigmas or yaml, by default by the file's ending; or knowledge: what "
    "`tuner search --learn-from` takes of a study.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file; without it the text is printed.")
@click.option("--model", help="Short name, hub id or local folder; by default the preset's own.")
@click.option("--text", is_flag=True, default=None, help="sigmas: one line of numbers.")
@click.option(
    "--for-scheduler",
    is_flag=True,
    default=None,
    help="sigmas: numbers that diffusers' scheduler shifts to these.",
)
@click.option("--snippet", is_flag=True, default=None, help="diffusers: a few lines for presets of one stage.")
@click.option(
    "--substitute", metavar="KERNEL", help="comfyui: use this kernel for those it lacks; the file says not scored."
)
@click.option("--prompt", help="The prompt that the file is written with.")
@click.option("--seed", type=click.IntRange(0, 2**53 - 1), help="The noise seed that the file is written with.")
@click.option("--unet", multiple=True, metavar="FILE", help="comfyui: the denoiser's file; Wan 2.2 has two.")
@click.option("--clip", multiple=True, metavar="FILE", help="comfyui: files of the text encoders, in order.")
@click.option("--vae", metavar="FILE", help="comfyui: file of the autoencoder.")
@click.option("--lora", metavar="FILE", help="comfyui: file of the LoRA that the preset needs.")
@out_option
def command(
    source: str,
    pick: str | None,
    name: str | None,
    output: Path | None,
    model: str | None,
    out: str,
    **chosen: Any,
) -> None:
    """Finds the preset, asks the format's exporter, writes and says where."""
    from tuner import exporters
    from tuner.errors import UserError

    if name == KNOWLEDGE:
        _export_knowledge(source, out, output, chosen)
        return
    if name is None:
        if output is None:
            raise UserError("Give a file with -o, whose ending names the format, or a --format to print.")
        name = exporters.for_file(output.name)
    exporter = exporters.load(name)
    options = _options(name, exporter, chosen, output)
    preset = _preset(source, pick, out, model)
    blueprint = _blueprint(preset, model) if model or exporter.needs_model(options) else None
    if output is None:
        click.echo(exporter.export(preset, blueprint, options), nl=False)
        return
    exporter.save(preset, blueprint, options, output)
    click.echo(str(output))


def _export_knowledge(source: str, out: str, output: Path | None, chosen: dict[str, Any]) -> None:
    """Writes what a study found out: schedules, relative costs and differences, without prompts and images.

    Raises:
        UserError: If there is no such study, or if an option of other formats is given.
    """
    from studies import open_study
    from studies.records.lessons import knowledge_of
    from tuner.errors import UserError
    from tuner.text_files import write

    given = [name for name, value in chosen.items() if value not in (None, ())]
    if given:
        raise UserError(f"Format 'knowledge' takes no --{given[0].replace('_', '-')}; leave it out.")
    text = knowledge_of(open_study(out, source)).model_dump_json(indent=1) + "\n"
    if output is None:
        click.echo(text, nl=False)
        return
    write(output, "Export", text.encode())
    click.echo(str(output))


def _options(name: str, exporter: Exporter, chosen: dict[str, Any], output: Path | None) -> ExportOptions:
    """Gathers what was chosen and refuses what this format or this file does not take."""
    from tuner.errors import UserError
    from tuner.exporters import ExportOptions

    options = ExportOptions(**{option: value for option, value in chosen.items() if value not in (None, ())})
    exporter.check_options(name, options)
    if output is None:
        return options
    if output.suffix.lower() not in exporter.suffixes:
        raise UserError(
            f"Format {name!r} is written to {' or '.join(exporter.suffixes)} files, not to {output.name!r}; "
            "change the ending or the format."
        )
    return exporter.for_suffix(options, output.suffix.lower())


def _preset(source: str, pick: str | None, out: str, model: str | None) -> Preset:
    """Reads a preset, or makes one of a study: of its own pick, or of another schedule."""
    from studies import list_studies, open_study, preset_of
    from studies.judge.within import choose
    from studies.report.page.contents import Contents
    from studies.report.page.record import score_lines
    from tuner import hub, models, presets
    from tuner.errors import unknown_name

    if source.startswith(presets.PLAIN):
        return presets.load(source, models.blueprint(model) if model else None)
    known = [study.name for study in list_studies(out)]
    if source not in known:
        elsewhere = hub.is_url(source) or hub.place(source) is not None or Path(source).is_file()
        if source not in presets.available() and not Path(source).suffix and not elsewhere:
            raise unknown_name("study or preset", source, [*known, *presets.available()])
        return presets.load(source)
    folder = open_study(out, source)
    result = Contents(folder).result
    candidates = [candidate for candidate in result.evaluated if candidate.stopped_at is None]
    scores = score_lines(folder)

    def scores_of(schedule: Schedule) -> dict[str, list[float]]:
        return {name: scores.of(schedule.content_hash, name) for name in folder.directions}

    chosen, note = choose(
        candidates,
        pick or f"trial:{result.pick.trial}",
        folder.directions,
        lambda one: scores_of(one.schedule),
        scores_of(folder.baseline),
    )
    if note is not None:
        click.echo(f"note: {note}", err=True)
    if result.ended_by == "unfinished":
        click.echo("note: the search is not over; this is the pick so far", err=True)
    elif chosen.trial != result.pick.trial:
        click.echo("note: only the study's own pick has scores on prompts that the search never saw", err=True)
    return preset_of(chosen, folder, result)


def _blueprint(preset: Preset, model: str | None) -> Blueprint | None:
    """Finds the model that is named, or else the preset's, with the preset's own options."""
    from tuner import models
    from tuner.presets import ANY_MODEL

    if model is None and preset.model == ANY_MODEL:
        return None
    known = models.blueprint(model or preset.model)
    return known.with_options(preset.model_options) if preset.model_options else known
