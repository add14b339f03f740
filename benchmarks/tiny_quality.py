"""What the embedded model can do: ``python -m benchmarks.tiny_quality`` prints each bar and its verdict.

Prompts are captions of the ``held_out`` split, which no training and no choice of a schedule has seen. An
image is right when the programmatic checker finds every attribute of its caption (``joint``). Half resolution
is checked on the 32-pixel images themselves. The staged schedules were picked on the ``search`` split
(``--split search`` repeats that measurement); each is compared, prompt by prompt on the same seeds, with the
best of several plain schedules that cost at least as many TFLOPs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

import objectives
from studies.judge.intervals import paired_score
from tuner.flops import price
from tuner.models import FlowModel, blueprint
from tuner.sampling import sample
from tuner.schedule import Schedule, Stage
from tuner.sigmas import partial_sigmas, truncated_sigmas
from tuner.tiny.checker import accuracy
from tuner.tiny.scenes import Split, captions, draw_scene, parse_caption, render

BATCH = 50
REWARD = "image_reward:tiny"
STEP_COUNTS = (50, 25, 12, 8, 6, 4, 3, 2)
GUIDANCE = (1.0, 1.5, 2.0, 4.0)
_GUIDED_STEPS = 12
PLAIN_SHIFTS = (1.5, 2.0, 3.0, 4.5)


@dataclass(frozen=True)
class Bar:
    """One requirement, what was measured and whether it holds."""

    name: str
    measured: str
    holds: bool


@dataclass(frozen=True)
class Row:
    """Scores of one schedule: TFLOPs per image, share of right images per attribute, mean reward."""

    schedule: str
    tflops: float
    accuracy: dict[str, float]
    reward: float


@dataclass(frozen=True)
class Comparison:
    """A staged schedule, its best plain rival, and the paired reward difference with its 95 % interval."""

    staged: Row
    plain: Row
    delta: float
    ci95: tuple[float, float]


class Bench:
    """The model, the scorer and a set of prompts with one fixed noise seed each."""

    def __init__(self, model: str, split: Split, prompts: int) -> None:
        self.model: FlowModel = blueprint(model).load("cpu", "float32")
        self.tiny = self.model.blueprint
        self.prompts = captions(split, prompts)
        self._reward = objectives.load(REWARD)
        self._conditioning = self.model.encode(self.prompts)

    def images(self, schedule: Schedule, side: int = 64) -> list[np.ndarray]:
        """Samples and decodes every prompt at an output size."""
        found: list[np.ndarray] = []
        for start in range(0, len(self.prompts), BATCH):
            seeds = range(start, min(start + BATCH, len(self.prompts)))
            rows = {key: value[start : start + BATCH] for key, value in self._conditioning.items()}
            latents = sample(self.model, schedule, rows, seeds, (side, side))
            found += [np.asarray(image) for image in self.model.decode(latents)]
        return found

    def run(self, name: str, schedule: Schedule) -> tuple[Row, list[float]]:
        """Samples at full size; returns the row of the table and the reward of each prompt."""
        images = self.images(schedule)
        rewards = self._reward.score([Image.fromarray(image) for image in images], self.prompts)
        shares = accuracy(images, self.prompts)
        return Row(name, price(schedule, self.tiny).tflops, shares, float(np.mean(rewards))), rewards

    def compare(self, name: str, schedule: Schedule) -> Comparison:
        """Compares a staged schedule with the best plain one of at least its TFLOPs."""
        row, rewards = self.run(name, schedule)
        steps = 1
        while price(self.tiny.plain(steps), self.tiny).tflops < row.tflops:
            steps += 1
        rivals = [
            self.run(
                f"{steps} steps, shift {shift:g}",
                Schedule(stages=(Stage(sigmas=truncated_sigmas(steps, shift=shift)),)),
            )
            for shift in PLAIN_SHIFTS
        ]
        plain, plain_rewards = max(rivals, key=lambda rival: rival[0].reward)
        score = paired_score(rewards, plain_rewards)
        return Comparison(row, plain, score.delta, score.ci95)


def staged(
    scale: float, low_steps: int, low_shift: float, high_steps: int, start: float, shift: float
) -> Schedule:
    """Steps at a small scale down to a clean image, then full-size steps from a partly noised enlargement.

    Args:
        scale: Scale of the first stage.
        low_steps: Its steps.
        low_shift: Its sigma shift.
        high_steps: Steps of the second stage.
        start: Unshifted noise level that the second stage starts from.
        shift: Sigma shift of the second stage.
    """
    low = Stage(scale=scale, sigmas=truncated_sigmas(low_steps, shift=low_shift))
    return Schedule(stages=(low, Stage(sigmas=partial_sigmas(high_steps, start, shift))))


def guided(schedule: Schedule, scale: float) -> Schedule:
    """Gives every stage a guidance scale."""
    stages = tuple(stage.model_copy(update={"guidance": scale}) for stage in schedule.stages)
    return schedule.model_copy(update={"stages": stages})


STAGED = {
    "2 x 32 px, 2 x 64 px": staged(0.5, 2, 2.0, 2, 0.85, 1.0),
    "2 x 32 px, 3 x 64 px": staged(0.5, 2, 2.0, 3, 0.8, 2.0),
    "2 x 32 px, 4 x 64 px": staged(0.5, 2, 2.0, 4, 0.8, 2.0),
}


def bars(
    renders: dict[int, float], plain: Sequence[Row], half: dict[str, float], comparisons: Sequence[Comparison]
) -> list[Bar]:
    """Holds the measurements against what the shipped weights are required to do."""
    joint = {row.schedule: row.accuracy["joint"] for row in plain}
    full, four, two = (joint[f"{steps} steps"] for steps in (50, 4, 2))
    best = max(comparisons, key=lambda comparison: comparison.ci95[0])
    low, high = best.ci95
    verdict = "beats" if low > 0 else "matches" if high >= 0 else "loses to"
    return [
        Bar(
            "checker on clean renders >= 0.97",
            f"{renders[64]:.3f} at 64 px, {renders[32]:.3f} at 32 px",
            min(renders.values()) >= 0.97,
        ),
        Bar("joint at 50 steps >= 0.90", f"{full:.3f}", full >= 0.90),
        Bar("joint falls: 50 > 4 > 2 steps", f"{full:.3f}, {four:.3f}, {two:.3f}", full > four > two),
        Bar("joint at half resolution >= 0.80", f"{half['joint']:.3f}", half["joint"] >= 0.80),
        Bar(
            "a staged schedule matches or beats plain steps on reward",
            f"{best.staged.schedule} {verdict} {best.plain.schedule}: {best.delta:+.3f} [{low:+.3f}, {high:+.3f}]",
            high >= 0,
        ),
    ]


def measure(model: str, split: Split, prompts: int) -> dict[str, Any]:
    """Runs everything; returns the bars, the step table and the staged comparisons as plain JSON types."""
    started = time.monotonic()
    bench = Bench(model, split, prompts)
    rng = np.random.default_rng(0)
    scenes = [draw_scene(parse_caption(caption), rng) for caption in bench.prompts]
    renders = {
        side: accuracy([render(scene, side) for scene in scenes], bench.prompts)["joint"] for side in (64, 32)
    }
    plain = [bench.run(f"{steps} steps", bench.tiny.plain(steps))[0] for steps in STEP_COUNTS]
    if bench.tiny.passes > 1:
        plain += [
            bench.run(
                f"{_GUIDED_STEPS} steps, guidance {scale:g}", guided(bench.tiny.plain(_GUIDED_STEPS), scale)
            )[0]
            for scale in GUIDANCE
        ]
    half = accuracy(bench.images(bench.tiny.baseline((32, 32)), 32), bench.prompts)
    comparisons = [bench.compare(name, schedule) for name, schedule in STAGED.items()]
    return {
        "model": model,
        "split": split,
        "prompts": prompts,
        "bars": [asdict(bar) for bar in bars(renders, plain, half, comparisons)],
        "plain": [asdict(row) for row in plain],
        "half_resolution": half,
        "staged": [asdict(comparison) for comparison in comparisons],
        "seconds": round(time.monotonic() - started, 1),
    }


def report(result: dict[str, Any]) -> str:
    """Formats what ``measure`` returned as tables."""
    rows = [("", "GFLOPs", "joint", "shape", "colour", "texture", "reward")]
    shown = [*result["plain"], *(row for pair in result["staged"] for row in (pair["staged"], pair["plain"]))]
    for row in shown:
        shares = (f"{row['accuracy'][name]:.3f}" for name in ("joint", "shape", "colour", "texture"))
        rows.append((row["schedule"], f"{1000 * row['tflops']:.3f}", *shares, f"{row['reward']:.3f}"))
    lines = [
        f"{'holds ' if bar['holds'] else 'MISSED'}  {bar['name']}: {bar['measured']}" for bar in result["bars"]
    ]
    lines += ["", *(f"{row[0]:>24}" + "".join(f"{cell:>9}" for cell in row[1:]) for row in rows), ""]
    for pair in result["staged"]:
        low, high = pair["ci95"]
        lines.append(
            f"{pair['staged']['schedule']} against {pair['plain']['schedule']}: reward {pair['delta']:+.3f}, "
            f"95 % interval [{low:+.3f}, {high:+.3f}]"
        )
    return "\n".join(
        [*lines, "", f"{result['model']}, {result['prompts']} {result['split']} prompts, {result['seconds']} s"]
    )


def main() -> int:
    """Prints the measurements; returns 0 whether or not the bars hold, since a miss is a result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tiny_quality", description=__doc__)
    parser.add_argument("--model", choices=("tiny", "tiny-cfg"), default="tiny")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--split", choices=("held_out", "search"), default="held_out")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    result = measure(options.model, options.split, options.prompts)
    print(json.dumps(result) if options.json else report(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
