"""What the shipped scale-wise student can do: ``python -m benchmarks.swd_quality`` prints a table.

Prompts are captions of the ``held_out`` split, which neither the model's training nor the distillation has seen.
The same schedule without the LoRA, plain sampling in as many steps and the teacher's 50 steps are compared with
the student prompt by prompt on the same seeds: reward, and whether every attribute of the caption is right.
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
from tuner import presets
from tuner.flops import price
from tuner.lora import applied
from tuner.models import ModelOptions, blueprint
from tuner.presets import Score
from tuner.sampling import sample
from tuner.schedule import Schedule
from tuner.tiny.checker import check
from tuner.tiny.scenes import Split, captions

PRESET = "swd-tiny-4"
REWARD = "image_reward:tiny"
STUDENT = "student"
BATCH = 50


@dataclass(frozen=True)
class Row:
    """One way to draw: GFLOPs per image, and its scores with the paired difference to the student's."""

    name: str
    gflops: float
    reward: Score
    joint: Score


def measure(preset: str, split: Split, prompts: int) -> dict[str, Any]:
    """Draws with all four and compares; returns plain JSON types."""
    started = time.monotonic()
    student = presets.load(preset)
    known = blueprint(student.model)
    model = known.load("cpu", "float32")
    texts = captions(split, prompts)
    reward = objectives.load(REWARD)

    def scores(schedule: Schedule, options: ModelOptions | None) -> tuple[list[float], list[float]]:
        images: list[Image.Image] = []
        with applied(model, options):
            for start in range(0, prompts, BATCH):
                part = texts[start : start + BATCH]
                seeds = range(start, start + len(part))
                images += model.decode(sample(model, schedule, model.encode(part), seeds))
        right = [float(check(np.asarray(image), text).joint) for image, text in zip(images, texts, strict=True)]
        return reward.score(images, texts), right

    steps = student.schedule.steps
    ways: dict[str, tuple[Schedule, ModelOptions | None]] = {
        STUDENT: (student.schedule, student.model_options),
        "same schedule, untrained": (student.schedule, None),
        f"{steps} plain steps": (known.plain(steps), None),
        f"{known.steps} steps, the teacher": (known.baseline(), None),
    }
    found = {name: scores(*what) for name, what in ways.items()}
    rows = []
    for name, (schedule, _) in ways.items():
        pair = (paired_score(ours, theirs) for ours, theirs in zip(found[name], found[STUDENT], strict=True))
        rows.append(Row(name, 1000 * price(schedule, known).tflops, *pair))
    return {
        "rows": [
            asdict(row) | {"reward": row.reward.model_dump(), "joint": row.joint.model_dump()} for row in rows
        ],
        "preset": preset,
        "split": split,
        "prompts": prompts,
        "seconds": round(time.monotonic() - started, 1),
    }


def report(result: dict[str, Any]) -> str:
    """Formats what ``measure`` returned as a table."""
    lines = [f"{'':>26}{'GFLOPs':>8}{'reward':>8}  {'minus student':<24}{'joint':>7}  minus student"]
    for row in result["rows"]:
        cells = [f"{row[key]['mean']:.3f}" for key in ("reward", "joint")]
        gaps = ["" if row["name"] == STUDENT else _gap(row[key]) for key in ("reward", "joint")]
        lines.append(
            f"{row['name']:>26}{row['gflops']:>8.3f}{cells[0]:>8}  {gaps[0]:<24}{cells[1]:>7}  {gaps[1]}".rstrip()
        )
    verdict = _verdict(result["rows"][1])
    return "\n".join(
        [*lines, "", verdict, f"{result['prompts']} {result['split']} prompts, {result['seconds']} s"]
    )


def _gap(score: dict[str, Any]) -> str:
    low, high = score["ci95"]
    return f"{score['delta']:+.3f} [{low:+.3f}, {high:+.3f}]"


def _verdict(untrained: dict[str, Any]) -> str:
    apart = {key: untrained[key]["ci95"][1] < 0 for key in ("reward", "joint")}
    said: Sequence[str] = [f"{'beats' if apart[key] else 'does not beat'} it on {key}" for key in apart]
    return f"against the same schedule untrained, the student {' and '.join(said)} (95 % interval)"


def main() -> int:
    """Prints the measurements; returns 0 whatever they are, since a miss is a result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.swd_quality", description=__doc__)
    parser.add_argument("--preset", default=PRESET, help="shipped name or file of the student's preset")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--split", choices=("held_out", "search"), default="held_out")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    result = measure(options.preset, options.split, options.prompts)
    print(json.dumps(result) if options.json else report(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
