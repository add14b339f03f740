"""``tuner ablate swd``."""

from __future__ import annotations

import functools
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from tuner.cli._ablations import AblationTable, options, show_all
from tuner.cli._progress import ProgressDisplay
from tuner.cli._training import list_of, settings_of, training_options

EXAMPLES = """\
  tuner ablate swd --model tiny --data generated --steps 100 --out runs/parts
"""

_ORDERS = (
    "A: a real latent, noised. B: half the size, enlarged, then noised. C: half the\n"
    "size, noised, then enlarged. The model draws on from there. Each score: its\n"
    "mean, the paired difference to A at the same level, and its 95 % interval.\n"
    "Paper: arXiv 2503.16397, Table 1, FID of 5000 images (lower is better)."
)
_STUDENTS = (
    "Every student was trained for the time of {steps} steps of the whole method.\n"
    "Each score: its mean, the paired difference to the whole method, and its 95 %\n"
    "interval.\n"
    "Paper: ImageReward of arXiv 2503.16397, Table 2 (SD3.5 Medium, COCO)."
)


@click.command(
    "swd",
    help="Scale-wise Distillation without each of its parts.\n\nStudents are trained for the same "
    "time, on the same data, and drawn on the same prompts and noise. "
    "An interrupted run goes on in --out.\n\n\b\nExamples:\n" + EXAMPLES,
)
@click.option("--data", required=True, help="Folder of images, or `generated`: the model draws them.")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of the runs.")
@click.option(
    "--steps",
    required=True,
    type=click.IntRange(1),
    help="Training steps of the whole method; the others get as many as take the same time.",
)
@click.option("--scales", callback=list_of(float), help="Scale of each step; by default the authors'.")
@click.option("--sigmas", callback=list_of(float), help="Noise level of each step, then 0; by default theirs.")
@click.option("--train-batch", default=8, show_default=True, help="Images of a training step.")
@training_options
@click.option("--objective", "names", multiple=True, help="Objective, repeatable; by default image_reward.")
@options(64, "Images of the first table, and held-out prompts of the second.", sized=False)
def swd(
    model: str,
    data: str,
    out: Path,
    steps: int,
    scales: tuple[float, ...] | None,
    sigmas: tuple[float, ...] | None,
    train_batch: int,
    names: tuple[str, ...],
    prompts: str | None,
    images: int,
    batch: int,
    seed: int,
    device: str | None,
    output: Path | None,
    as_json: bool,
    **training: Any,
) -> None:
    """Loads model and objectives, trains and scores every student and prints two tables."""
    import torch

    from objectives import load
    from studies.evaluate.swd_ablations import SCALES, contenders, measure, shifted_sigmas, students
    from studies.evaluate.swd_orders import Orders
    from studies.evaluate.swd_students import train_all
    from studies.plan.prompts import load_prompts
    from studies.plan.specs import objective_specs
    from studies.work.evaluator import Evaluator
    from tuner.distill.swd import GENERATED
    from tuner.distill.swd.data import ImageFolder, generate
    from tuner.distill.swd.networks import distillable
    from tuner.models import blueprint

    known = blueprint(model)
    scales, sigmas = scales or SCALES, sigmas or shifted_sigmas(known)
    given = {"model": model, "scales": scales, "sigmas": sigmas, "batch": train_batch, "seed": seed}
    whole = settings_of(training | given | {"out": out, "steps": 1})  # the time decides how many steps
    wanted = students(whole, known)
    sets = load_prompts(prompts, known)
    texts = sets.held_out[:images]
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    with ProgressDisplay() as display:
        display.show("loading the model")
        flow = distillable(known.load(device))
        scorers = [load(spec, device) for spec in objective_specs(names or ("image_reward",), known)]
        folder = Path(data)
        if data == GENERATED:
            folder = out / "data"
            on_image = functools.partial(display.show, "drawing data")
            generate(flow, sets.search, folder, seed, batch, on_image)
        real = ImageFolder(folder)
        count = min(images, len(real))
        orders = Orders(flow, scorers, real, count, batch, seed, display.show).rows()
        trained = train_all(wanted, folder, steps, out, device == "cpu", display.show)
        found = contenders({name: one.preset for name, one in trained.items()}, known)
        on_progress = functools.partial(display.show, "images of the students")
        rows = measure(Evaluator(flow, scorers), known, found, texts, batch, seed, on_progress)
    about = {"model": model, "prompts": len(texts), "real_images": count, "steps": steps}
    tables = [
        AblationTable("orders", f"Order of enlarging and noising on {model}, {count} images", orders, _ORDERS),
        AblationTable(
            "rows",
            f"Scale-wise Distillation on {model}, {len(texts)} prompts",
            rows,
            _STUDENTS.format(steps=steps),
        ),
    ]
    timings = {name: asdict(one.timing) for name, one in trained.items()}
    show_all(tables, about | {"training": timings}, output, as_json)
