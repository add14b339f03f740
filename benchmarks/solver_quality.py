"""What each solver makes of so many network calls: ``python -m benchmarks.solver_quality`` prints three tables.

One stage of `tiny` at full size, uniform levels at shift 3, the same captions of the ``held_out`` split and the
same seeds for every solver. PSNR is to the images of 100 Euler steps on the same grid. Every difference is to
Euler with the same number of calls, paired by caption, with a 95 % interval. A solver that cannot make exactly so
many calls makes one less.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

import objectives
from studies.judge.intervals import paired_score
from tuner.models import FlowModel, blueprint
from tuner.sampling import sample
from tuner.schedule import Schedule, Stage
from tuner.solvers import available, network_calls
from tuner.tiny.scenes import captions

CALLS = (3, 4, 5, 6, 8, 10, 12, 16)
SHIFT = 3.0
TEACHER_STEPS = 100
BATCH = 64
SCORES = {"reward": "image_reward:tiny", "clip": "clip:tiny"}
REFERENCE = "euler"


def schedule_of(solver: str, calls: int) -> Schedule:
    """Returns the schedule of most steps that makes at most so many calls."""
    grids = [Schedule(stages=(Stage(steps=steps, shift=SHIFT),), solver=solver) for steps in range(1, calls + 1)]
    return [grid for grid in grids if network_calls(solver, grid.stages[0].sigmas) <= calls][-1]


def draw(model: FlowModel, prompts: Sequence[str], schedule: Schedule) -> list[Image.Image]:
    """Draws every prompt with a seed of its own."""
    images: list[Image.Image] = []
    for start in range(0, len(prompts), BATCH):
        part = prompts[start : start + BATCH]
        images += model.decode(sample(model, schedule, model.encode(part), range(start, start + len(part))))
    return images


def psnr(images: Sequence[Image.Image], teacher: Sequence[Image.Image]) -> list[float]:
    """Peak signal-to-noise ratio of each image to the teacher's, dB; 100 where they are equal."""
    errors = [
        np.mean((np.asarray(ours, float) - np.asarray(theirs, float)) ** 2)
        for ours, theirs in zip(images, teacher, strict=True)
    ]
    return [float(10 * np.log10(255**2 / max(error, 255**2 / 1e10))) for error in errors]


def measure(solvers: Sequence[str], calls: Sequence[int], prompts: int) -> dict[str, Any]:
    """Draws with every solver at every number of calls; returns plain JSON types."""
    started = time.monotonic()
    model = blueprint("tiny").load("cpu", "float32")
    texts = list(captions("held_out", prompts))
    scorers = {name: objectives.load(spec) for name, spec in SCORES.items()}
    teacher = draw(model, texts, Schedule(stages=(Stage(steps=TEACHER_STEPS, shift=SHIFT),)))

    def scored(images: list[Image.Image]) -> dict[str, list[float]]:
        return {"psnr": psnr(images, teacher)} | {name: one.score(images, texts) for name, one in scorers.items()}

    rows = []
    for count in calls:
        reference = scored(draw(model, texts, schedule_of(REFERENCE, count)))
        for solver in (REFERENCE, *(name for name in solvers if name != REFERENCE)):
            schedule = schedule_of(solver, count)
            found = reference if solver == REFERENCE else scored(draw(model, texts, schedule))
            rows.append(
                {
                    "solver": solver,
                    "calls": count,
                    "made": network_calls(solver, schedule.stages[0].sigmas),
                    "scores": {
                        name: paired_score(values, reference[name]).model_dump() for name, values in found.items()
                    },
                }
            )
            print(f"{count} calls: {solver}", file=sys.stderr, flush=True)
    teacher_scores = {name: float(np.mean(one.score(teacher, texts))) for name, one in scorers.items()}
    return {
        "rows": rows,
        "teacher": teacher_scores,
        "prompts": prompts,
        "seconds": round(time.monotonic() - started, 1),
    }


def report(result: dict[str, Any]) -> str:
    """Formats what ``measure`` returned as Markdown tables, a row for each solver and a column for each count."""
    counts = sorted({row["calls"] for row in result["rows"]})
    found = {(row["solver"], row["calls"]): row for row in result["rows"]}
    solvers = list(dict.fromkeys(solver for solver, _ in found))
    lines = []
    for name, unit, digits in (
        ("psnr", "PSNR to the teacher, dB", 2),
        ("reward", "reward", 3),
        ("clip", "CLIP", 3),
    ):
        lines += [f"{unit}; in brackets the difference to Euler and half its 95 % interval", ""]
        lines += [f"| calls | {' | '.join(map(str, counts))} |", f"|---|{'---|' * len(counts)}"]
        for solver in solvers:
            cells = [_cell(found[solver, count], name, digits) for count in counts]
            lines.append(f"| `{solver}` | {' | '.join(cells)} |")
        lines.append("")
    teacher = ", ".join(f"{name} {value:.3f}" for name, value in result["teacher"].items())
    return "\n".join(
        [*lines, f"The teacher scores {teacher}.", f"{result['prompts']} captions, {result['seconds']} s"]
    )


def _cell(row: dict[str, Any], name: str, digits: int) -> str:
    score = row["scores"][name]
    low, high = score["ci95"]
    fewer = "*" if row["made"] < row["calls"] else ""
    if row["solver"] == REFERENCE:
        return f"{score['mean']:.{digits}f}"
    return f"{score['mean']:.{digits}f}{fewer} ({score['delta']:+.{digits}f} ± {(high - low) / 2:.{digits}f})"


def main() -> int:
    """Prints the measurements; returns 0 whatever they are."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.solver_quality", description=__doc__)
    parser.add_argument("--solvers", nargs="+", choices=available(), default=available())
    parser.add_argument("--calls", nargs="+", type=int, default=CALLS)
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    result = measure(options.solvers, options.calls, options.prompts)
    print(json.dumps(result) if options.json else report(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
