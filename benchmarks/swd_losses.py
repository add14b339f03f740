"""Which losses of scale-wise distillation are worth their time: ``python -m benchmarks.swd_losses`` prints tables.

Students of `tiny` are trained for the same time with the patch loss alone, with distribution matching, and with a
discriminator, and so are full-scale students: plain steps at full size of about the same cost. The shipped
student, untrained schedules and many plain steps stand beside them, on the same held-out captions and noise.

Variety is measured on captions with stripes, with several noise seeds each: how often two images of a caption have
stripes of different directions (the world draws four, so 0.75 is all there is), and how far two images are apart.
An interrupted run goes on in ``--out``; ``tuner ablate swd`` shares its students if it has the same options.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

import objectives
from studies.evaluate.ablations import WHOLE
from studies.evaluate.swd_ablations import SCALES, shifted_sigmas, students
from studies.evaluate.swd_students import train_all
from studies.judge.intervals import paired_score
from tuner import presets
from tuner.distill.swd import SwdSettings
from tuner.flops import price
from tuner.lora import applied
from tuner.models import Blueprint, FlowModel, ModelOptions, blueprint
from tuner.sampling import sample
from tuner.schedule import Schedule
from tuner.tiny.checker import check
from tuner.tiny.scenes import STRIPE_ANGLES, STRIPE_PERIODS, captions, random_scene, render

SHIPPED = "shipped student"
MANY = "12 plain steps"
SCORES = {"reward": 3, "joint": 3, "stripes": 3, "spread": 4}
"""Scores and their decimals."""
BATCH = 40
SEEDS = 8
"""Images of each caption with stripes."""
Way = tuple[Schedule, ModelOptions | None]


def scenes(folder: Path, count: int) -> None:
    """Draws training images: scenes of the train split at 64 pixels, with their captions."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(count):
        scene = random_scene(rng, "train")
        Image.fromarray(render(scene, 64)).save(folder / f"{number}.png")
        lines.append(json.dumps({"file_name": f"{number}.png", "text": scene.caption}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def wanted(known: Blueprint, out: Path) -> dict[str, SwdSettings]:
    """Returns the students to train."""
    whole = SwdSettings(
        model=known.name,
        scales=SCALES,
        sigmas=shifted_sigmas(known),
        out=out,
        steps=1,
        losses=("mmd", "dmd", "gan"),
        rank=24,
        rate=3e-4,
        critic_rate=1e-3,
        critic_steps=1,
    )
    full = {name: one for name, one in students(whole, known).items() if "full-size" in name}
    return {
        WHOLE: whole,
        "mmd": whole.model_copy(update={"losses": ("mmd",)}),
        "mmd, dmd": whole.model_copy(update={"losses": ("mmd", "dmd")}),
        **full,
    }


def draw(model: FlowModel, way: Way, texts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
    """Draws one image per caption and seed."""
    schedule, options = way
    images: list[Any] = []
    with torch.no_grad(), applied(model, options):
        for start in range(0, len(texts), BATCH):
            part = slice(start, start + BATCH)
            images += model.decode(sample(model, schedule, model.encode(texts[part]), seeds[part]))
    return images


def stripe_angle(image: Image.Image) -> float:
    """Returns the direction of the grating that explains the grey pixels of an image best."""
    rgb = np.asarray(image, dtype=np.float64) / 255
    grey = rgb.max(axis=2) - rgb.min(axis=2) < 0.12
    axis = (np.arange(rgb.shape[0]) + 0.5) / rgb.shape[0] - 0.5
    x, y = (grid[grey] for grid in np.meshgrid(axis, axis))
    values = rgb.mean(axis=2)[grey]

    def unexplained(angle: float, period: float) -> float:
        wave = 2 * math.pi * (math.cos(angle) * x + math.sin(angle) * y) / period
        design = np.stack([np.ones_like(wave), np.cos(wave), np.sin(wave)], axis=1)
        return float(((values - design @ np.linalg.lstsq(design, values, rcond=None)[0]) ** 2).sum())

    return min(
        itertools.product(STRIPE_ANGLES, np.linspace(*STRIPE_PERIODS, 9)), key=lambda pair: unexplained(*pair)
    )[0]


def variety(images: Sequence[Image.Image]) -> tuple[list[float], list[float], dict[str, float]]:
    """Measures how different the images of each caption are, of ``SEEDS`` images each.

    Returns:
        For each caption the share of pairs of images whose stripes differ in direction, and their mean distance
        (root mean square, grey values 0 to 1); and the share of images with stripes of each direction in degrees.
    """
    angles = [stripe_angle(image) for image in images]
    pixels: npt.NDArray[np.float64] = np.stack([np.asarray(image, dtype=np.float64) / 255 for image in images])
    differ, spread = [], []
    for start in range(0, len(images), SEEDS):
        pairs = list(itertools.combinations(range(start, start + SEEDS), 2))
        differ.append(float(np.mean([angles[a] != angles[b] for a, b in pairs])))
        spread.append(float(np.mean([np.sqrt(np.mean((pixels[a] - pixels[b]) ** 2)) for a, b in pairs])))
    shares = {
        f"{math.degrees(angle):.0f}": float(np.mean([a == angle for a in angles])) for angle in STRIPE_ANGLES
    }
    return differ, spread, shares


@dataclass(frozen=True)
class Measured:
    """What one way to draw does: per-caption scores, directions of its stripes, and seconds per image."""

    scores: Mapping[str, list[float]]
    directions: Mapping[str, float]
    seconds: float


def measure(model: FlowModel, way: Way, texts: Sequence[str], striped: Sequence[str]) -> Measured:
    """Draws and scores one way; seconds are of the processor, in batches."""
    started = time.process_time()
    images = draw(model, way, texts, range(len(texts)))
    seconds = (time.process_time() - started) / len(texts)
    right = [float(check(np.asarray(image), text).joint) for image, text in zip(images, texts, strict=True)]
    many = [text for text in striped for _ in range(SEEDS)]
    differ, spread, directions = variety(draw(model, way, many, range(len(many))))
    reward = objectives.score(objectives.load("image_reward:tiny"), images, texts)
    return Measured({"reward": reward, "joint": right, "stripes": differ, "spread": spread}, directions, seconds)


def run(out: Path, steps: int, prompts: int, captions_of_stripes: int) -> dict[str, Any]:
    """Trains, draws and compares; returns plain JSON types."""
    data = out / "scenes"
    if not (data / "metadata.jsonl").is_file():
        scenes(data, 2000)
    known = blueprint("tiny")
    settings = wanted(known, out)
    trained = train_all(settings, data, steps, out, True, _say)
    shipped = presets.load("swd-tiny-4")
    whole = settings[WHOLE].schedule
    ways: dict[str, Way] = {SHIPPED: (shipped.schedule, shipped.model_options)}
    for name, one in trained.items():
        preset = presets.load(one.preset)
        ways[name] = (preset.schedule, preset.model_options)
    ways |= {
        "the same, untrained": (whole, None),
        "shipped's, untrained": (shipped.schedule, None),
        MANY: (known.plain(12), None),
    }
    texts = captions("held_out", prompts)
    striped = [text for text in captions("held_out", 40 * captions_of_stripes) if "striped" in text]
    model = known.load("cpu", "float32")
    found = {}
    for name, way in ways.items():
        found[name] = measure(model, way, texts, striped[:captions_of_stripes])
        _say(f"measured: {name}", len(found), len(ways))
    rows = []
    for name, (schedule, _) in ways.items():
        timing = trained[name].timing if name in trained else None
        pairs = {key: paired_score(found[name].scores[key], found[SHIPPED].scores[key]) for key in SCORES}
        row = {"name": name, "gflops": 1000 * price(schedule, known).tflops, "seconds": found[name].seconds}
        row |= {key: score.model_dump() for key, score in pairs.items()}
        rows.append(row | {"directions": found[name].directions, "training": asdict(timing) if timing else None})
    return {"rows": rows, "steps": steps, "prompts": prompts, "striped": captions_of_stripes}


def report(result: Mapping[str, Any]) -> str:
    """Formats what ``run`` returned as tables of 80 columns."""
    rows = result["rows"]
    lines = [f"{'':>22}{'GFLOPs':>8}{'s/image':>9}{'s/step':>8}{'steps':>7}"]
    for row in rows:
        timing = row["training"]
        trained = f"{timing['seconds_per_step']:>8.2f}{timing['steps']:>7}" if timing else ""
        lines.append(f"{row['name']:>22}{row['gflops']:>8.3f}{row['seconds']:>9.4f}{trained}")
    for first, second in (("reward", "joint"), ("stripes", "spread")):
        lines += [
            "",
            f"{'':>22}" + "".join(f"{key:>7}  {'minus shipped':<16}" for key in (first, second)).rstrip(),
        ]
        lines += [
            f"{row['name']:>22}" + "".join(_cell(row, key) for key in (first, second)).rstrip() for row in rows
        ]
    lines += ["", f"{'stripes, degrees':>22}" + "".join(f"{angle:>8}" for angle in rows[0]["directions"])]
    lines += [
        f"{row['name']:>22}" + "".join(f"{share:>8.2f}" for share in row["directions"].values()) for row in rows
    ]
    about = (
        f"{result['prompts']} held_out prompts; {result['striped']} of them with stripes, {SEEDS} images each; "
        f"training for the time of {result['steps']} steps of the whole method"
    )
    return "\n".join([*lines, "", about])


def _cell(row: Mapping[str, Any], key: str) -> str:
    score, digits = row[key], SCORES[key]
    low, high = (f"{end:+.{2}f}" for end in score["ci95"])
    return f"{score['mean']:>7.{digits}f}  {f'[{low}, {high}]':<16}"


def _say(what: str, done: int, total: int | None) -> None:
    print(f"{what} {done}/{total}", file=sys.stderr, flush=True)


def main() -> int:
    """Prints the measurements; returns 0 whatever they are, since a miss is a result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.swd_losses", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/swd"), help="folder of the runs")
    parser.add_argument("--steps", type=int, default=80, help="training steps of the whole method")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--striped", type=int, default=16, help="captions with stripes")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    result = run(options.out, options.steps, options.prompts, options.striped)
    print(json.dumps(result) if options.json else report(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
