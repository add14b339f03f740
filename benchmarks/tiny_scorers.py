"""How well the embedded scorers tell good from bad: ``python -m benchmarks.tiny_scorers``.

On captions that no training saw (the ``held_out`` split), each line gives the mean score of what should be
better, of what should be worse, and their paired difference with its 95 % bootstrap interval over captions.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np
from PIL import Image, ImageFilter

import objectives
from objectives import Objective
from tuner.tiny.scenes import captions, change_one_attribute, draw_scene, parse_caption, render

SIZE = 64
SCORERS = ("image_reward:tiny", "clip:tiny")
STEPS = (50, 25, 12, 8, 6, 4, 3, 2)
NOISE_LEVELS = 25  # standard deviation, of 255


@dataclass(frozen=True)
class Comparison:
    """A paired comparison over captions.

    Attributes:
        better: What should score higher.
        worse: What should score lower.
        mean_better: Mean score of the first.
        mean_worse: Mean score of the second.
        delta: Mean of the paired differences.
        ci95: 95 % bootstrap interval of ``delta``.
        wins: Share of captions whose difference is positive.
    """

    better: str
    worse: str
    mean_better: float
    mean_worse: float
    delta: float
    ci95: tuple[float, float]
    wins: float


def compare(better: str, worse: str, scores: dict[str, Sequence[float]]) -> Comparison:
    """Compares two lists of scores of the same captions."""
    high, low = np.asarray(scores[better]), np.asarray(scores[worse])
    differences = high - low
    rng = np.random.default_rng(0)
    means = rng.choice(differences, (2000, len(differences))).mean(axis=1)
    interval = (float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975)))
    return Comparison(
        better,
        worse,
        float(high.mean()),
        float(low.mean()),
        float(differences.mean()),
        interval,
        float((differences > 0).mean()),
    )


def score_renders(objective: Objective, count: int) -> dict[str, Sequence[float]]:
    """Scores renders of held-out captions, spoiled in known ways, and against a caption wrong in one attribute."""
    prompts = captions("held_out", count)
    rng = np.random.default_rng(0)
    clean = [Image.fromarray(render(draw_scene(parse_caption(prompt), rng), SIZE)) for prompt in prompts]
    wrong = [change_one_attribute(parse_caption(prompt), rng).caption for prompt in prompts]

    def noisy(image: Image.Image) -> Image.Image:
        pixels = np.asarray(image) + rng.normal(0, NOISE_LEVELS, (SIZE, SIZE, 3))
        return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))

    def halved(image: Image.Image) -> Image.Image:
        small = image.resize((SIZE // 2, SIZE // 2), Image.Resampling.BOX)
        return small.resize((SIZE, SIZE), Image.Resampling.BILINEAR)

    spoiled: dict[str, Callable[[Image.Image], Image.Image]] = {
        "blurred (1 px)": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
        "blurred (2 px)": lambda image: image.filter(ImageFilter.GaussianBlur(2)),
        "noisy": noisy,
        "halved": halved,
    }
    scores: dict[str, Sequence[float]] = {
        "clean": objective.score(clean, prompts),
        "wrong caption": objective.score(clean, wrong),
    }
    for name, spoil in spoiled.items():
        scores[name] = objective.score([spoil(image) for image in clean], prompts)
    return scores


RENDER_PAIRS = (
    ("clean", "blurred (1 px)"),
    ("blurred (1 px)", "blurred (2 px)"),
    ("clean", "noisy"),
    ("clean", "halved"),
    ("clean", "wrong caption"),
)


def draw_samples(count: int, steps: Sequence[int] = STEPS, batch: int = 50) -> dict[str, list[Image.Image]]:
    """Samples held-out captions by plain sampling, each caption from the same noise for every number of steps."""
    from tuner import models
    from tuner.sampling import sample

    model = models.blueprint("tiny").load("cpu")
    prompts = captions("held_out", count)
    images: dict[str, list[Image.Image]] = {f"{n} steps": [] for n in steps}
    for start in range(0, count, batch):
        chunk = prompts[start : start + batch]
        conditioning = model.encode(chunk)
        seeds = range(start, start + len(chunk))
        for n in steps:
            latents = sample(model, model.blueprint.plain(n), conditioning, list(seeds))
            images[f"{n} steps"] += model.decode(latents)
    return images


def step_pairs(steps: Sequence[int]) -> list[tuple[str, str]]:
    """Returns neighbours in a list of step numbers, as the names that ``draw_samples`` uses."""
    return [(f"{more} steps", f"{fewer} steps") for more, fewer in pairwise(steps)]


def main() -> None:
    """Prints the comparisons of both scorers."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tiny_scorers", description=main.__doc__)
    parser.add_argument("--prompts", type=int, default=200, help="held-out captions (default: 200)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()

    prompts = captions("held_out", options.prompts)
    samples = draw_samples(options.prompts)
    results: dict[str, list[Comparison]] = {}
    for spec in SCORERS:
        objective = objectives.load(spec)
        renders = score_renders(objective, options.prompts)
        sampled: dict[str, Sequence[float]] = {
            name: objective.score(images, prompts) for name, images in samples.items()
        }
        results[spec] = [compare(*pair, renders) for pair in RENDER_PAIRS]
        results[spec] += [compare(*pair, sampled) for pair in step_pairs(STEPS)]
        results[spec] += [compare(f"{a} steps", f"{b} steps", sampled) for a, b in ((50, 4), (4, 2))]
    if options.json:
        json.dump({spec: [asdict(line) for line in lines] for spec, lines in results.items()}, sys.stdout)
        return
    for spec, lines in results.items():
        print(f"{spec}, {options.prompts} held-out captions")
        print(
            f"  {'better':16} {'worse':16} {'mean':>8} {'mean':>8} {'difference, 95 % interval':>32} {'wins':>6}"
        )
        for line in lines:
            low, high = line.ci95
            interval = f"{line.delta:+8.3f} [{low:+8.3f}, {high:+8.3f}]"
            print(
                f"  {line.better:16} {line.worse:16} {line.mean_better:8.3f} {line.mean_worse:8.3f} "
                f"{interval:>32} {line.wins:6.2f}"
            )


if __name__ == "__main__":
    main()
