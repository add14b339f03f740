"""Scores every schedule of the table on every prompt: ``python -m benchmarks.make_table``.

The stages that schedules share are run once, and so is each text encoding. What is scored is what a search scores:
the same prompts, the same noise, the same scorers. It takes a quarter of an hour of one core; a run that is killed
goes on where it was.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

import objectives
from benchmarks.table import OBJECTIVES, PATH, PROMPTS, schedules, settings
from studies.plan import Plan, make_plan, versions
from tuner.sampling import run_stage
from tuner.schedule import Schedule

Family = tuple[Schedule, ...]


@functools.cache
def _scorer() -> Callable[[Family], tuple[dict[str, np.ndarray], float]]:
    """Loads the model once per process; what it returns scores schedules that share all stages but the last."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    plan = make_plan(settings("."))
    model = plan.blueprint.load("cpu")
    scorers = [objectives.load(f"{name}:tiny") for name in OBJECTIVES]
    prompts = (*plan.prompts.search, *plan.prompts.held_out)
    seeds = range(plan.image_seeds, plan.image_seeds + 2 * PROMPTS)
    conditioning = model.encode(prompts)

    def score(family: Family) -> tuple[dict[str, np.ndarray], float]:
        started, latents, found = time.process_time(), None, {}
        for schedule in family:
            last = len(schedule.stages) - 1
            if last and latents is None:
                latents = run_stage(model, schedule, 0, None, conditioning, seeds, plan.size)
            clean = run_stage(model, schedule, last, latents, conditioning, seeds, plan.size)
            images = model.decode(clean)
            found[schedule.content_hash] = np.array([scorer.score(images, prompts) for scorer in scorers]).T
        return found, time.process_time() - started

    return score


def _score(family: Family) -> tuple[dict[str, np.ndarray], float]:
    return _scorer()(family)


def _families(everything: Sequence[Schedule]) -> list[Family]:
    """Groups schedules by the stages before their last one; those of a single stage share nothing."""

    def beginning(schedule: Schedule) -> str:
        return "".join(stage.model_dump_json() for stage in schedule.stages[:-1])

    staged = sorted((schedule for schedule in everything if len(schedule.stages) > 1), key=beginning)
    return [(schedule,) for schedule in everything if len(schedule.stages) == 1] + [
        tuple(family) for _, family in groupby(staged, key=beginning)
    ]


def _read(path: Path, weights: str) -> tuple[dict[str, np.ndarray], float]:
    """Reads what an earlier run has scored with the same weights, and the seconds that it took."""
    if not path.exists():
        return {}, 0.0
    with np.load(path) as data:
        about = json.loads(str(data["about"]))
        if about["weights"] != weights:
            return {}, 0.0
        return dict(zip(about["schedules"], data["scores"], strict=True)), about["cpu_seconds"]


def _write(path: Path, plan: Plan, found: dict[str, np.ndarray], seconds: float) -> None:
    about = {
        "schedules": list(found),
        "prompts": [*plan.prompts.search, *plan.prompts.held_out],
        "weights": plan.weights,
        "versions": versions(),
        "cpu_seconds": round(seconds),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(partial, scores=np.array(list(found.values()), dtype=np.float32), about=json.dumps(about))
    partial.replace(path)


def main() -> None:
    """Makes the table; what is there already is not scored again."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.make_table", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=PATH)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    plan = make_plan(settings("."))
    everything = [plan.baseline, *schedules()]
    found, seconds = _read(options.output, plan.weights)
    missing = [schedule for schedule in everything if schedule.content_hash not in found]
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        for scores, taken in pool.map(_score, _families(missing)):
            found |= scores
            seconds += taken
            _write(options.output, plan, found, seconds)
            print(f"{len(found)} of {len(everything)} schedules, {seconds:.0f} s of one core", flush=True)


if __name__ == "__main__":
    main()
