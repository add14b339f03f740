"""``tuner ablate``: what each part of a published method is worth on a model."""

from __future__ import annotations

import functools
from pathlib import Path

import click

from tuner.cli import _ablate_oss, _ablate_swd
from tuner.cli._ablations import options, show
from tuner.cli._progress import ProgressDisplay

_EXAMPLES = """\b
Examples:
  tuner ablate bottleneck --model tiny
  tuner ablate bottleneck --model flux --images 100 --objective image_reward \\
      -o ablations.md
"""


@click.group(
    help="Measures what each part of a published method is worth.\n\n"
    + _EXAMPLES
    + _ablate_oss.EXAMPLES
    + _ablate_swd.EXAMPLES
)
def command() -> None:
    """The group; its help is in the decorator."""


@command.command(
    help="Bottleneck Sampling without each of its parts.\n\nPrompts and noise are the same.\n\n" + _EXAMPLES
)
@click.option("--preset", default="bottleneck-flux-3x", show_default=True, help="The whole method.")
@click.option(
    "--objective", "names", multiple=True, help="Objective, repeatable; by default clip and image_reward."
)
@options(64, "Prompts to score.")
def bottleneck(
    model: str,
    preset: str,
    names: tuple[str, ...],
    prompts: str | None,
    images: int,
    batch: int,
    seed: int,
    size: tuple[int, int] | None,
    device: str | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Loads model and objectives, runs every ablation and prints the table."""
    from studies.evaluate.ablations import bottleneck_ablations, run_ablations
    from studies.plan.prompts import load_prompts
    from studies.plan.specs import objective_specs
    from studies.work.evaluator import Evaluator
    from tuner import presets
    from tuner.models import blueprint

    known = blueprint(model)
    size = known.check_size(size or known.size)
    schedules = bottleneck_ablations(presets.load(preset).schedule, known, size)
    texts = load_prompts(prompts, known).held_out[:images]
    specs = objective_specs(names or ("clip", "image_reward"), known)
    with ProgressDisplay() as display:
        display.show("loading the model")
        evaluator = Evaluator.load(model, specs, device)
        on_progress = functools.partial(display.show, "images")
        rows = run_ablations(evaluator, known, schedules, texts, size, batch, seed, on_progress)
    title = f"{preset} on {model} at {size[0]}x{size[1]}, {len(texts)} prompts"
    about = {"model": model, "preset": preset, "prompts": len(texts)}
    show(title, rows, _EXPLANATION, about, output, as_json)


_EXPLANATION = (
    "Each score: its mean, the paired difference to the whole method, and the difference's 95 % interval.\n"
    "Paper: the value of arXiv 2503.18940 (Tables 3 and 7, FLUX.1-dev) and its difference to the whole method.\n"
    "Its Table 3 prints the x2 row of Table 1 as the x3 method; the differences are to that row."
)


command.add_command(_ablate_oss.oss)
command.add_command(_ablate_swd.swd)
