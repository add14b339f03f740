"""``tuner schedule``: makes schedules by rule, without a study."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuner.cli import _completion as complete
from tuner.cli._common import json_option, model_options, print_json, print_table, size_option
from tuner.cli._progress import ProgressDisplay
from tuner.errors import UserError
from tuner.tables import Cells

if TYPE_CHECKING:
    from tuner.distill.oss import Result
    from tuner.distill.steps import Settings
    from tuner.models import Blueprint, ModelOptions, Size
    from tuner.presets import Cost, Preset
    from tuner.schedule import Schedule

_EXAMPLES = """\b
Examples:
  tuner schedule oss --model tiny --steps 5 -o oss-5.yaml
  tuner schedule oss --model flux --steps 4-20 --teacher-steps 100 -o oss/
  tuner schedule oss --model flux --steps 10 --coarse-to-fine -o oss-10.yaml
  tuner schedule oss --model tiny --steps 8 --solver dpmpp-2m -o oss-8.yaml
  tuner schedule oss --model flux --preset bottleneck-flux-3x -o retimed.yaml
"""
_RESIZED = """\
  tuner schedule resize --preset oss-flux-10 --steps 8 -o oss-flux-8.yaml
"""


class StepsType(click.ParamType[tuple[int, ...]]):
    """Numbers of steps: ``5``, ``4-20`` or ``5,10,20``."""

    name = "K|A-B|K,K,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Parses numbers and ranges between commas."""
        if isinstance(value, tuple):
            return value
        steps: set[int] = set()
        try:
            for part in str(value).split(","):
                first, _, last = part.partition("-")
                steps |= set(range(int(first), int(last or first) + 1))
        except ValueError:
            steps = set()
        if not steps or min(steps) < 1:
            self.fail(f"{value!r} is no number of steps; write 5, 4-20 or 5,10,20.", param, ctx)
        return tuple(sorted(steps))


@click.group(help="Makes schedules by rule, without a study.\n\n" + _EXAMPLES + _RESIZED)
def command() -> None:
    """The group; its help is in the decorator."""


@command.command(
    help="Distils a schedule from the model's own trajectories.\n\nOptimal Stepsize, arXiv 2503.21774.\n\n"
    + _EXAMPLES
)
@click.option(
    "--model",
    shell_complete=complete.models,
    help="Short name, hub id or local folder; by default that of --preset.",
)
@click.option("--steps", type=StepsType(), help="Wanted steps; one table serves all of them.")
@click.option("--all-steps", type=click.IntRange(1), metavar="K", help="Every number of steps up to K.")
@click.option(
    "--preset",
    shell_complete=complete.presets,
    help="Re-time the stages of this preset instead; each keeps its number of steps.",
)
@click.option("--teacher-steps", default=100, show_default=True, type=click.IntRange(2), help="Teacher's steps.")
@click.option("--prompts", metavar="FILE", help="One prompt per line; by default the set that suits the model.")
@click.option("--images", default=16, show_default=True, type=click.IntRange(1), help="Prompts to search on.")
@click.option("--batch", default=16, show_default=True, type=click.IntRange(1), help="Images per network call.")
@click.option(
    "--aggregate",
    type=click.Choice(["mean-cost", "mean-log", "median", "mean"]),
    default="mean-cost",
    show_default=True,
    help="One schedule of least mean cost or mean log cost (PSNR), or the median or mean of one per prompt.",
)
@click.option(
    "--distance",
    type=click.Choice(["x_0", "x_t"]),
    default="x_0",
    show_default=True,
    help="Compare the predicted clean images, or the latents at two thirds of the calls.",
)
@click.option(
    "--solver",
    default="euler",
    show_default=True,
    help="Step rule to run with, e.g. dpmpp-2m; not one that draws noise.",
)
@click.option("--coarse-to-fine", is_flag=True, help="A coarse table, then a close look: a quarter of the calls.")
@click.option("--polish", is_flag=True, help="Then move each level to where the end itself comes nearest.")
@click.option("--calibrate", is_flag=True, help="Store the teacher's amplitudes, to which sampling rescales.")
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0), help="Noise seed of the first prompt."
)
@size_option
@click.option("--device", help="Torch device; by default the first GPU, else the CPU.")
@model_options
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Preset file, or a folder.")
@json_option
def oss(
    model: str | None,
    steps: tuple[int, ...] | None,
    all_steps: int | None,
    preset: str | None,
    prompts: str | None,
    images: int,
    seed: int,
    size: Size | None,
    device: str | None,
    options: ModelOptions,
    output: Path,
    as_json: bool,
    **settings: Any,
) -> None:
    """Loads the model, searches and writes one preset per number of steps."""
    from studies.plan.prompts import load_prompts
    from tuner import presets
    from tuner.distill.oss import retime, search
    from tuner.distill.rule import check
    from tuner.distill.steps import Settings
    from tuner.fits import check_fits
    from tuner.models import blueprint

    if sum(option is not None for option in (steps, all_steps, preset)) != 1:
        raise UserError("Give one of --steps, --all-steps and --preset.")
    loaded = presets.load(preset) if preset else None
    if model is None and loaded is None:
        raise UserError("Give --model: a short name, a hub id or a local folder.")
    if loaded and loaded.model_options is not None:
        options = options.model_copy(update=loaded.model_options.of_images() | options.of_images())
    known = blueprint(model or (loaded.model if loaded else "")).with_options(options)
    if size is None and loaded and loaded.model == known.name:
        size = (loaded.height, loaded.width)
    size = known.check_size(size or known.size)
    wanted = steps or tuple(range(1, (all_steps or 0) + 1))
    chosen = Settings(**settings)
    check(chosen.solver)
    if loaded is None and max(wanted) > chosen.teacher_steps:
        raise UserError(
            f"A teacher of {chosen.teacher_steps} steps has no schedule of {max(wanted)}; raise --teacher-steps."
        )
    if loaded is None and len(wanted) > 1 and output.suffix:
        raise UserError(f"{len(wanted)} presets do not fit into one file {str(output)!r}; name a folder.")
    texts = load_prompts(prompts, known).search[:images]
    seeds = range(seed, seed + len(texts))
    with ProgressDisplay() as display:
        display.show("loading the model")
        check_fits(known, options, device)
        flow = known.load(device, options=options)
        on_progress = functools.partial(display.show, "image forward passes")
        if loaded:
            result = retime(flow, texts, seeds, loaded.schedule, size, chosen, on_progress)
        else:
            result = search(flow, texts, seeds, wanted, size, chosen, on_progress)
    searched_on = f"{len(texts)} prompts, noise seeds from {seed}"
    made = _presets(result, known, size, chosen, loaded, searched_on, options.of_presets())
    alone = len(made) == 1 and output.suffix
    rows = []
    for (count, cost), one in zip(result.costs.items(), made, strict=True):
        path = presets.save(one, output if alone else output / f"{one.name}.yaml")
        assert one.cost is not None  # _presets prices every one
        rows.append({"preset": str(path), "steps": count, "cost": cost, "tflops": one.cost.tflops})
    if as_json:
        print_json({"presets": rows, "image_forward_passes": result.images})
        return
    header = ["preset", "steps", "distance to the teacher", "TFLOPs"]
    cells = [(str(row["preset"]), f"{row['steps']}", f"{row['cost']:.6g}", f"{row['tflops']:.6g}") for row in rows]
    print_table(Cells(header, cells, key=header))
    click.echo(f"{result.images} image forward passes")


@command.command(
    help="Takes a preset of one stage to another number of steps.\n\nIt interpolates log-linearly, "
    "without a model, as ComfyUI resizes the published lists of Optimal Stepsize.\n\n\b\nExamples:\n" + _RESIZED
)
@click.option("--preset", required=True, shell_complete=complete.presets, help="What to resize.")
@click.option("--steps", required=True, type=click.IntRange(1), help="Wanted steps.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Preset file.")
def resize(preset: str, steps: int, output: Path) -> None:
    """Writes the resized preset."""
    from tuner import presets
    from tuner.models import blueprint
    from tuner.presets import Preset
    from tuner.schedule import MOST_STEPS, Schedule
    from tuner.sigmas import log_linear

    loaded = presets.load(preset)
    stage, size = loaded.schedule.stages[0], (loaded.height, loaded.width)
    if len(loaded.schedule.stages) != 1 or stage.reuse or stage.amplitudes:
        raise UserError(
            f"Only a preset of one stage without reuse and amplitudes can be resized, but {preset!r} has others; "
            "give oss-flux-10, say."
        )
    if steps > MOST_STEPS:
        raise UserError(f"A stage has at most {MOST_STEPS} steps, but --steps is {steps}; give fewer.")
    resized = stage.model_copy(update={"sigmas": log_linear(stage.sigmas, steps)})
    schedule = Schedule(stages=(resized,), solver=loaded.schedule.solver, cache=loaded.schedule.cache)
    made = Preset(
        name=f"{loaded.name}-in-{steps}",
        model=loaded.model,
        source=loaded.source,
        notes=f"The levels of {loaded.name}, in {steps} steps by log-linear interpolation. {loaded.notes}".strip(),
        height=loaded.height,
        width=loaded.width,
        schedule=schedule,
        model_options=loaded.model_options,
        cost=None if loaded.model == presets.ANY_MODEL else _cost(schedule, blueprint(loaded.model), size),
    )
    click.echo(str(presets.save(made, output)))


def _cost(schedule: Schedule, known: Blueprint, size: Size) -> Cost:
    from tuner.flops import price
    from tuner.presets import Cost

    cost, baseline = price(schedule, known, size), price(known.baseline(size), known, size)
    return Cost(tflops=cost.tflops, nfe=cost.nfe, speedup=baseline.tflops / cost.tflops)


def _presets(
    result: Result,
    known: Blueprint,
    size: Size,
    settings: Settings,
    base: Preset | None,
    searched_on: str,
    options: ModelOptions | None,
) -> list[Preset]:
    """Names, prices and explains what was found."""
    from tuner.presets import Preset

    made = []
    for count, schedule in result.schedules.items():
        name = f"oss-{base.name}" if base else f"oss-{known.name.replace('/', '-')}-{count}"
        source = (
            f"Optimal Stepsize, arXiv 2503.21774, distilled from {settings.teacher_steps} steps of {known.name}"
        )
        made.append(
            Preset(
                name=name,
                model=known.name,
                source=f"{source}; stages of {base.name}: {base.source}" if base else source,
                notes=f"Searched on {searched_on}; {_how(settings)}.",
                height=size[0],
                width=size[1],
                schedule=schedule,
                model_options=options,
                cost=_cost(schedule, known, size),
            )
        )
    return made


def _how(settings: Settings) -> str:
    """Says which search it was, as the options that ask for it."""
    flags = ("coarse_to_fine", "polish", "calibrate")
    parts = [f"aggregate {settings.aggregate}", f"distance {settings.distance}", f"solver {settings.solver}"]
    return ", ".join(parts + [f"--{flag.replace('_', '-')}" for flag in flags if getattr(settings, flag)])
