"""``tuner ablate oss``."""

from __future__ import annotations

from pathlib import Path

import click

from tuner.cli._ablations import options, show
from tuner.cli._progress import ProgressDisplay
from tuner.errors import UserError

EXAMPLES = """\
  tuner ablate oss --model tiny
  tuner ablate oss --model flux --steps 10 --batch 4 -o oss-ablations.md
"""

_EXPLANATION = (
    "PSNR: dB to the images of {reference} plain steps; the mean, the paired difference\n"
    "to the whole method, and its 95 % interval. Schedules are found on {searched} other\n"
    "prompts; the whole method compares clean images with a teacher of {teacher} steps\n"
    "and minimises the mean cost.\n"
    "Paper: arXiv 2503.21774, ImageNet-64, 20 steps (Tables 2 and 3; whole method:\n"
    "OSS-ave); for latents Table 4, against 22.45 dB for clean images."
)


@click.command(
    "oss",
    help="Optimal Stepsize found in other ways.\n\nPrompts and noise are the same.\n\n\b\nExamples:\n" + EXAMPLES,
)
@click.option("--steps", default=5, show_default=True, type=click.IntRange(2), help="Steps of every schedule.")
@click.option(
    "--search-images", default=8, show_default=True, type=click.IntRange(1), help="Prompts to search on."
)
@options(32, "Others to measure on.")
def oss(
    model: str,
    steps: int,
    prompts: str | None,
    search_images: int,
    images: int,
    batch: int,
    seed: int,
    size: tuple[int, int] | None,
    device: str | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Loads the model, runs every ablation and prints the table."""
    from studies.evaluate.oss_ablations import MOST, REFERENCE, TEACHER, OssAblations
    from studies.plan.prompts import load_prompts
    from tuner.models import blueprint

    if steps > MOST:
        raise UserError(
            f"The reference has {REFERENCE} times the steps, at most {REFERENCE * MOST}, but --steps is {steps}; "
            f"give {MOST} or fewer."
        )
    known = blueprint(model)
    size = known.check_size(size or known.size)
    sets = load_prompts(prompts, known)
    searched, texts = sets.search[:search_images], sets.held_out[:images]
    with ProgressDisplay() as display:
        display.show("loading the model")
        flow = known.load(device)
        rows = OssAblations(flow, searched, texts, steps, size, batch, seed, display.show).rows()
    explanation = _EXPLANATION.format(reference=REFERENCE * steps, teacher=TEACHER * steps, searched=len(searched))
    title = f"Optimal Stepsize on {model} at {size[0]}x{size[1]}, {steps} steps, {len(texts)} prompts"
    about = {"model": model, "steps": steps, "search_prompts": len(searched), "prompts": len(texts)}
    show(title, rows, explanation, about, output, as_json, digits=2)
