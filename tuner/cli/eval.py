"""``tuner eval``: presets against the baseline and against plain step reduction at the same cost."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from tuner.cli import _completion as complete
from tuner.cli._common import (
    EXIT_FAILURE,
    DurationType,
    chunk_option,
    json_option,
    model_options,
    print_json,
    print_table,
    say,
    size_option,
    stdout_for_results,
    view_options,
)
from tuner.cli._progress import ProgressDisplay
from tuner.errors import UserError
from tuner.tables import Cells

if TYPE_CHECKING:
    from studies.evaluate import EvalSettings, Verification
    from tuner.presets import Score
    from tuner.tables import View

_EXAMPLES = """\b
Examples:
  tuner eval plain:12 plain:4 plain:2 --model tiny
  tuner eval flux-3x.yaml plain:12 --model flux --prompts DrawBench.csv
  tuner eval flux-3x.yaml --model flux --seeds 4 -o evals/flux \\
      --margin clip=1%,image_reward=0.05
  tuner eval plain:12 --model tiny --prompts held_out.txt --all-prompts \\
      --until-decided
  tuner eval --verify flux-3x.yaml        do its recorded scores hold?

Running the same command again goes on where it stopped. PRESET is a shipped name, a YAML file, plain:N for N plain
steps, or plain:N-SOLVER. Of FILE, the half is scored that `tuner search --prompts FILE` holds out. A preset with a
guidance, a negative prompt or a LoRA of its own is drawn with it; options given here hold for all others.
"""
_PHASE = "units of work"


@click.command(help="Compares presets on prompts that no search has seen.\n\n" + _EXAMPLES)
@click.argument("presets", metavar="PRESET...", nargs=-1, shell_complete=complete.presets)
@click.option("--model", shell_complete=complete.models, help="Short name, hub id or local folder.")
@click.option("--prompts", metavar="FILE", help=".txt, .csv, .tsv, .jsonl or .json. Default: a shipped set.")
@click.option("--all-prompts", is_flag=True, help="Score the half that a search sees, too.")
@click.option("--limit", type=int, metavar="N", help="At most this many prompts.")
@click.option("--until-decided", is_flag=True, help="Stop where a preset is as good as the baseline, or worse.")
@click.option("--seeds", default=1, show_default=True, metavar="N", help="Noise seeds of each prompt.")
@click.option("--seed", default=0, show_default=True, help="Decides which noise.")
@click.option(
    "--objectives", default="clip,image_reward", show_default=True, help="NAME or NAME:WEIGHTS, with commas."
)
@click.option("--baseline", metavar="PRESET", help="Compare with this; by default the model's own sampler.")
@click.option(
    "--margin", default="1%", show_default=True, help="Loss that counts as none: 1%, 0.05 or clip=1%,..."
)
@size_option
@chunk_option
@model_options
@click.option("-o", "--output", "out", metavar="DIR", help="Folder for scores and report; by default under runs.")
@click.option("--workers", type=int, help="Worker processes; by default one per GPU, or per CPU core.")
@click.option("--gpus-per-worker", type=float, metavar="F", help="GPUs of each worker; may be a fraction.")
@click.option("--ray-address", metavar="A", help="Ray cluster to join; by default one is started here.")
@click.option(
    "--task-timeout",
    type=DurationType(),
    help="Give a unit of work to another worker after this long; by default 20 times the longest, at least 10m.",
)
@click.option("--verify", "verified", metavar="FILE", help="Run again what a preset's provenance says, instead.")
@view_options
@json_option
def command(
    presets: tuple[str, ...],
    verified: str | None,
    objectives: str,
    view: View,
    as_json: bool,
    **options: Any,
) -> None:
    """Runs with progress on stderr, and prints the tables on stdout."""
    from studies.evaluate import EvalSettings

    if verified is not None:
        _refuse_what_the_file_says(click.get_current_context())
    elif not (presets and options["model"]):
        raise UserError("Say what to evaluate, such as `tuner eval plain:12 --model tiny`, or give --verify FILE.")
    names = tuple(name.strip() for name in objectives.split(",") if name.strip())
    options["model"] = options["model"] or ""  # the preset's own is taken
    settings = EvalSettings(presets=presets, objectives=names, **options)
    try:
        with ProgressDisplay() as bar:
            if verified is not None:
                _verify(verified, settings, as_json, bar)
            else:
                _evaluate(settings, as_json, view, bar)
    except KeyboardInterrupt:
        click.echo("what is finished is saved; the same command goes on with it", err=True)
        raise
    except RuntimeError as error:
        click.echo(f"error: {error}; what is finished is saved", err=True)
        sys.exit(EXIT_FAILURE)


def _refuse_what_the_file_says(ctx: click.Context) -> None:
    """Only what no preset names may be given beside ``--verify``: the prompts' file, and options of a machine."""
    from tuner.models import OF_MACHINES

    free = {"verified", "prompts", "out", "workers", "gpus_per_worker", "ray_address", "task_timeout", "as_json"}
    free |= set(OF_MACHINES)
    names = [parameter.name for parameter in ctx.command.params if parameter.name is not None]
    given = [name for name in names if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if extra := [name for name in given if name not in free]:
        listed = ", ".join("PRESET" if name == "presets" else f"--{name.replace('_', '-')}" for name in extra)
        raise UserError(f"`--verify` takes everything that decides a score from its file; leave {listed} out.")


def _evaluate(settings: EvalSettings, as_json: bool, view: View, bar: ProgressDisplay) -> None:
    from studies.evaluate import evaluate
    from studies.evaluate.report import HOW_TO_READ, tables
    from studies.report.ending import too_few, verdict_text

    with stdout_for_results():
        result, folder = evaluate(settings, on_progress=functools.partial(bar.show, _PHASE))
    bar.stop()
    if as_json:
        print_json(result.model_dump(mode="json"))
        return
    for table in tables(result):
        print_table(table, view)
    say(HOW_TO_READ)
    for row in result.rows:
        if row.failure is not None:
            say(f"{row.name} failed: {row.failure}")
        if row.checked is not None:
            say(f"{row.name}: {verdict_text(row.checked)}")
    for line in too_few(result.prompts):
        say(line)
    say(f"report: {folder.path}")


def _verify(path: str, settings: EvalSettings, as_json: bool, bar: ProgressDisplay) -> None:
    from studies.evaluate import verify

    with stdout_for_results():
        found = verify(path, settings, on_progress=functools.partial(bar.show, _PHASE))
    bar.stop()
    if as_json:
        print_json(found.model_dump(mode="json") | {"holds": found.holds})
    else:
        _print_verification(found)
    if not found.holds:
        sys.exit(EXIT_FAILURE)


def _print_verification(found: Verification) -> None:
    print_table(
        Cells(
            ["objective", "prompts", "recorded", "measured", "verdict"],
            [
                (
                    check.objective,
                    str(check.prompts),
                    _score(check.recorded),
                    _score(check.measured),
                    check.verdict,
                )
                for check in found.checks
            ],
            key=("objective", "recorded", "measured", "verdict"),
            title=found.preset,
        )
    )
    for name, change in found.other_versions.items():
        say(f"{name} was {change}")
    if found.exact_expected:
        rule = "the versions are those of the provenance and both machines are CPUs, so they must be exact"
    else:
        rule = "other versions or a GPU may change bits, so they must be within the recorded intervals"
    say(f"the recorded scores {'hold' if found.holds else 'do not hold'}; {rule}")
    if found.exact_expected and not found.holds:
        said = "options of the search that no preset names (--quantize, --transformer, --no-tiling, ...)"
        click.echo(
            f"what else changes bits: {said}, other weights, another kind of processor, or a GPU then", err=True
        )


def _score(score: Score) -> str:
    low, high = score.ci95
    return f"{score.mean:.6g} ({score.delta:+.4g} [{low:+.3g}, {high:+.3g}])"
