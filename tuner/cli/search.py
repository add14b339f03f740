"""``tuner search``: finds schedules that fit a budget."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import search_spaces
from tuner.cli import _completion as complete
from tuner.cli._common import (
    EXIT_FAILURE,
    DurationType,
    chunk_option,
    json_option,
    model_options,
    out_option,
    print_json,
    print_study,
    resume_command,
    say,
    size_option,
    stdout_for_results,
    view_options,
)
from tuner.cli._dry_run import check_only_dry, print_estimate
from tuner.cli._progress import ProgressDisplay
from tuner.devices import known_devices
from tuner.errors import UserError

if TYPE_CHECKING:
    from studies import Progress, SearchSettings, StudyResult
    from studies.engine.leaders import Leader
    from studies.engine.live_log import LiveLog
    from tuner.tables import View

_EXAMPLES = """\b
Examples:
  tuner search --model tiny --budget 3x
  tuner search --model flux --budget 40% --trials 200 --prompts mine.txt
  tuner search --model ./my-flux --budget 1200T --objectives clip,image_reward
  tuner search --model flux --budget 3x --for comfyui   a workflow, too
  tuner search --model flux --budget 3x --dry-run       what it costs at most
  tuner search --model wan2.1-14b --budget 3x --dry-run --device h100 \\
      --price-per-hour 2.5
  tuner search --model flux --budget 3x --ray-address auto --workers 16 \\
      --gpus-per-worker 0.5
  tuner search --model tiny --budget 3x --resume        go on

\b
Budgets, per image:
  3x      a third of the baseline's TFLOPs    40%    of the baseline's TFLOPs
  1200T   TFLOPs                              16nfe  network forward passes
  4s      seconds, as measured on a worker's device before the search starts
"""

_SHOWN = 5  # leaders in the terminal
_PHASES = {
    "starting": "starting workers",
    "baseline": "baseline",
    "trials": "trials",
    "held-out": "check on unseen prompts",
}


@click.command(help="Searches schedules that fit a compute budget.\n\n" + _EXAMPLES)
@click.option("--model", required=True, shell_complete=complete.models, help="Short name, hub id or local folder.")
@click.option("--budget", required=True, help="What one image may cost: 3x, 40%, 1200T, 16nfe or 4s.")
@click.option("-n", "--trials", default=60, show_default=True, help="Trials; one more for each reference.")
@click.option("--time-limit", type=DurationType(), help="Propose nothing new after this long, e.g. 30m.")
@click.option("--max-tflops", type=float, metavar="T", help="Propose nothing that could take the study beyond it.")
@click.option("--patience", type=int, metavar="N", help="End after N trials without a gain in hypervolume.")
@click.option(
    "--prompts",
    metavar="FILE",
    help=".txt, .csv, .tsv, .jsonl or .json; half are held out. Default: a shipped set.",
)
@click.option(
    "--search-prompts", default=32, show_default=True, help="At most this many prompts score a schedule."
)
@click.option("--held-out-prompts", default=64, show_default=True, help="At most this many others score the pick.")
@click.option(
    "--rungs",
    default=2,
    show_default=True,
    help="A schedule is scored on 1/4 of the prompts (2 rungs) or 1/16 (3), and on more when that promises most; "
    "1 scores each on all at once.",
)
@click.option(
    "--objectives",
    default="clip,image_reward",
    show_default=True,
    help="NAME, NAME:WEIGHTS or MODULE:FUNCTION, with commas; see `tuner objectives`.",
)
@click.option(
    "--space",
    default="free",
    show_default=True,
    help=f"Search space: {', '.join(search_spaces.available())}; oss as oss:PRESET.",
)
@click.option(
    "--for",
    "for_target",
    metavar="FORMAT",
    help="Search only what this format of `tuner export` carries exactly, and export the pick.",
)
@click.option(
    "--start",
    multiple=True,
    metavar="PRESET|FILE",
    help="Evaluate this, too: a preset, or a file that `tuner import` reads; may be repeated.",
)
@click.option(
    "--learn-from",
    multiple=True,
    metavar="STUDY|FILE",
    help="Let this earlier study inform proposals; may be repeated.",
)
@click.option("--learn", is_flag=True, help="Learn from all finished studies of the same objectives in DIR.")
@size_option
@chunk_option
@model_options
@click.option(
    "--pick",
    default="within:1%",
    show_default=True,
    help="Winner: within:MARGIN, the cheapest that is shown to lose less; knee, cheapest, best:OBJECTIVE.",
)
@click.option(
    "--check-prompts",
    type=int,
    metavar="N",
    help="Check the pick on up to N unseen prompts, until it is as good as the baseline or worse.",
)
@click.option("--check-tflops", type=float, metavar="T", help="Check it on as many as T TFLOPs pay for.")
@click.option(
    "--margin", default="1%", show_default=True, help="Loss that counts as none: 1%, 0.05 or clip=1%,..."
)
@click.option("--study", metavar="NAME", help="Name of the study; by default MODEL-BUDGET.")
@click.option("--resume", is_flag=True, help="Continue the study of this name.")
@click.option("--dry-run", is_flag=True, help="Print what the search will cost at most, and exit.")
@click.option(
    "--device",
    metavar="NAME",
    help=f"With --dry-run, what it will run on: {', '.join(known_devices())}, or here to time this device.",
)
@click.option("--device-tflops", type=float, metavar="N", help="With --dry-run, TFLOP/s that it makes, e.g. 400.")
@click.option("--price-per-hour", type=float, metavar="P", help="With --dry-run, price of an hour of one GPU.")
@click.option("--reuse/--no-reuse", default=True, show_default=True, help="Take scores from other studies in DIR.")
@click.option("--seed", default=0, show_default=True, help="Seed of the proposals and of the noise.")
@click.option(
    "--lag",
    default=4,
    show_default=True,
    help="Trials in flight; with many workers 12 x WORKERS / units per schedule, or 6 x with --rungs 1.",
)
@click.option(
    "--workers", type=click.IntRange(0, 4096), help="Worker processes; by default one per GPU, or per CPU core."
)
@click.option("--gpus-per-worker", type=float, metavar="F", help="GPUs of each worker; may be a fraction.")
@click.option("--ray-address", metavar="A", help="Ray cluster to join; by default one is started here.")
@click.option(
    "--task-timeout",
    type=DurationType(),
    help="Give a unit of work to another worker after this long; by default 20 times the longest, at least 10m.",
)
@click.option("--storage", metavar="URL", help="Optuna storage; by default a journal in the study's folder.")
@click.option("--tracking-uri", metavar="URI", help="MLflow server; by default a database in DIR.")
@out_option
@view_options
@json_option
def command(
    as_json: bool,
    resume: bool,
    learn: bool,
    dry_run: bool,
    device: str | None,
    device_tflops: float | None,
    price_per_hour: float | None,
    objectives: str,
    view: View,
    **options: Any,
) -> None:
    """Runs the search with progress on stderr, and prints the front on stdout."""
    from studies.plan.settings import SearchSettings
    from studies.plan.words import check_new, check_words

    names = tuple(name.strip() for name in objectives.split(",") if name.strip())
    settings = SearchSettings(objectives=names, **options)
    check_words(settings)  # a typo is told before Optuna and torch are loaded
    asked = {"--device": device, "--device-tflops": device_tflops, "--price-per-hour": price_per_hour}
    if dry_run:
        print_estimate(settings, device, device_tflops, price_per_hour, as_json)
        return
    check_only_dry(asked)
    if not resume:
        check_new(settings.out, settings.name)
    settings = _learning(settings, learn)

    from studies import StudyFolder, search
    from studies.engine.live_log import LiveLog
    from studies.report.mlflow_study import TrackingError, log_study

    with stdout_for_results(), ProgressDisplay() as display:
        if sys.stderr.isatty():  # elsewhere an error is the only line
            display.show("planning")
        study = Path(settings.out) / settings.name
        try:
            with LiveLog(StudyFolder(study), settings.tracking_uri) as log:
                result = search(settings, on_progress=functools.partial(_show, display, log), resume=resume)
        except KeyboardInterrupt:
            click.echo(f"study {settings.name!r} is saved; continue it with: {resume_command()}", err=True)
            raise
        except RuntimeError as error:
            click.echo(f"error: study {settings.name!r} failed, what it finished is saved: {error}", err=True)
            sys.exit(EXIT_FAILURE)
        display.show("logging to MLflow")
        try:
            log_study(StudyFolder(study), settings.tracking_uri)
        except TrackingError as error:
            click.echo(f"warning: not logged to MLflow ({error}); --resume logs the study later", err=True)
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        _print_result(result, settings, view)


def _learning(settings: SearchSettings, learn: bool) -> SearchSettings:
    """Names the studies that a search learns from where it is to find them itself.

    Raises:
        UserError: If some are given, too.
    """
    from studies.records.lessons import teachers

    if not learn:
        return settings
    if settings.learn_from:
        raise UserError("--learn finds the earlier studies itself; leave it or --learn-from out.")
    found = settings.model_copy(update={"learn_from": teachers(settings)})
    click.echo(f"learning from {', '.join(found.learn_from) or 'no earlier study'}", err=True)
    return found


def _print_result(result: StudyResult, settings: SearchSettings, view: View) -> None:
    """Prints results first, then details, then what to do next."""
    from studies.report.ending import cost_lines, next_lines

    print_study(result, view)
    say(f"preset: {result.preset}")
    if result.exported is not None:
        say(f"export: {result.exported}")
    for line in (*cost_lines(result), *next_lines(result, settings)):
        say(line)


def _show(display: ProgressDisplay, log: LiveLog, progress: Progress) -> None:
    """Shows the phase, the spent TFLOPs, the time left and the best scores so far, and tells MLflow."""
    from studies.report.numbers import duration

    total = "" if progress.tflops_total is None else f" of about {progress.tflops_total:.3g}"
    left = "" if progress.left_s is None else f", about {duration(progress.left_s)} left"
    counts = f"; {progress.running} running, {progress.stopped_early} stopped early"
    spent = f"{progress.tflops_spent:.3g}{total} TFLOPs{left}{counts}" if progress.running else ""
    lines = [spent, *_leading(progress)]
    display.show(_PHASES[progress.phase], progress.trials_done, progress.trials_total, "\n".join(lines))
    log.show(progress)


def _leading(progress: Progress) -> list[str]:
    """Writes the cheapest schedule within the margin, and a few leaders from the cheapest to the dearest."""
    from studies.report.shorthand import shorthand

    found = progress.leaders
    if not found:
        return []
    within = next((f"{one.speedup:.3g}x (trial {one.trial})" for one in found if one.within), "none")
    last = len(found) - 1
    places = dict.fromkeys(round(place * last / (_SHOWN - 1)) for place in range(_SHOWN))
    few = [found[place] for place in places]
    return [
        f"cheapest that is shown to be within the margin: {within}",
        *(f"{one.speedup:6.2f}x  {_means(one)}  {shorthand(one.schedule)}" for one in few),
    ]


def _means(leader: Leader) -> str:
    """Writes the difference on each objective, or the mean where a difference means nothing."""
    return "  ".join(
        f"{name} {leader.differences[name]:+.2g}" if name in leader.differences else f"{name} {score:.4g}"
        for name, score in leader.scores.items()
    )
