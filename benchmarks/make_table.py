"""Scores every schedule of the table on every prompt: ``python -m benchmarks.make_table``.

What is scored is what a search scores: the same prompts, the same noise, the same scorers. Stages that schedules
share are run once, and so is each text encoding. Schedules beyond the budget, which are on no front, are scored on
a few prompts alone; those that many others beat on half of the search prompts on that half and on some of the
held-out ones; the rest, the baseline and the references of a search on all (see ``benchmarks.table``). It takes
more than two hours of one core; a run that is killed goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import objectives
from benchmarks.table import (
    DEAR_PROMPTS,
    FAR_HELD_OUT,
    FAR_PROMPTS,
    OBJECTIVES,
    PATH,
    schedules,
    table_plan,
)
from studies.plan.plan import Plan, versions
from tuner.sampling import run_stage
from tuner.schedule import Schedule

if TYPE_CHECKING:
    import numpy.typing as npt

    from tuner.schedule import Stage

_WRITE_EVERY = 8
_FEW = 25  # schedules that beat one which is near the front nevertheless


class Scorer:
    """Scores one schedule after another on the same prompts, from where it parts with the one before.

    Args:
        plan: The search; its model and scorers are loaded.
        prompts: Prompts whose noise is that of a search: numbers count from the first one.
    """

    def __init__(self, plan: Plan, prompts: Sequence[str]):
        self._model = plan.blueprint.load("cpu")
        self._scorers = [objectives.load(f"{name}:tiny") for name in OBJECTIVES]
        self._size, self._prompts = plan.size, prompts
        self._seeds = range(plan.image_seeds, plan.image_seeds + len(prompts))
        self._conditioning = self._model.encode(prompts)
        self._kept: list[tuple[Stage, torch.Tensor]] = []
        self._drawing: tuple[Any, ...] = ()

    def score(self, schedule: Schedule, numbers: Sequence[int]) -> npt.NDArray[np.float64]:
        """Scores the prompts of these numbers: (prompts, objectives)."""
        drawing = tuple(numbers), schedule.solver, schedule.cache
        if drawing != self._drawing:
            self._kept, self._drawing = [], drawing
        conditioning = {name: tensor[list(numbers)] for name, tensor in self._conditioning.items()}
        seeds, prompts = [self._seeds[n] for n in numbers], [self._prompts[n] for n in numbers]
        same = [kept == stage for (kept, _), stage in zip(self._kept, schedule.stages, strict=False)]
        shared = (*same, False).index(False)
        del self._kept[min(shared, len(schedule.stages) - 1) :]
        for index in range(len(self._kept), len(schedule.stages)):
            latents = self._kept[-1][1] if self._kept else None
            latents = run_stage(self._model, schedule, index, latents, conditioning, seeds, self._size)
            self._kept.append((schedule.stages[index], latents))
        images = self._model.decode(self._kept[-1][1])
        return np.array([scorer.score(images, prompts) for scorer in self._scorers]).T


def _read(path: Path, weights: str, prompts: Sequence[str]) -> tuple[dict[str, npt.NDArray[np.float64]], float]:
    """Reads what an earlier run has scored with the same weights, and the seconds that it took."""
    if not path.exists():
        return {}, 0.0
    with np.load(path) as data:
        about = json.loads(str(data["about"]))
        known = about["prompts"]
        if about["weights"] != weights or known != list(prompts[: len(known)]):
            return {}, 0.0
        missing = [(0, 0), (0, len(prompts) - len(known)), (0, 0)]
        scores = np.pad(data["scores"].astype(float), missing, constant_values=np.nan)
        return dict(zip(about["schedules"], scores, strict=True)), about["cpu_seconds"]


def _write(
    path: Path, plan: Plan, prompts: Sequence[str], found: dict[str, npt.NDArray[np.float64]], seconds: float
) -> None:
    about = {
        "schedules": list(found),
        "prompts": list(prompts),
        "weights": plan.weights,
        "versions": versions(),
        "cpu_seconds": round(seconds),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(partial, scores=np.array(list(found.values()), dtype=np.float32), about=json.dumps(about))
    partial.replace(path)


def _near_the_front(
    plan: Plan, affordable: Sequence[Schedule], found: dict[str, npt.NDArray[np.float64]]
) -> list[Schedule]:
    """Picks the affordable schedules that few others beat on the prompts that all have, at no higher cost."""
    losses = np.array(
        [[plan.price(one).tflops, *-found[one.content_hash][:FAR_PROMPTS].mean(axis=0)] for one in affordable]
    )
    no_worse, better = (np.stack([op(losses, one) for one in losses]) for op in (np.less_equal, np.less))
    dominators = (no_worse.all(axis=2) & better.any(axis=2)).sum(axis=1)
    return [schedule for schedule, others in zip(affordable, dominators, strict=True) if others < _FEW]


def main() -> None:
    """Makes the table; what is there already is not scored again."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.make_table", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=PATH)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    plan = table_plan()
    prompts = (*plan.prompts.search, *plan.prompts.held_out)
    everything = sorted(schedules(), key=lambda one: (not plan.budget.allows(plan.price(one)), len(one.stages)))
    always = [plan.baseline, *(reference.schedule for reference in plan.references)]
    found, seconds = _read(options.output, plan.weights, prompts)
    scorer = Scorer(plan, prompts)

    def score(wanted: Sequence[Schedule], search: int, held_out: int) -> None:
        nonlocal seconds
        numbers = [*range(search), *range(len(plan.prompts.search), len(plan.prompts.search) + held_out)]
        for done, schedule in enumerate(wanted):
            scores = found.setdefault(schedule.content_hash, np.full((len(prompts), len(OBJECTIVES)), np.nan))
            missing = [number for number in numbers if np.isnan(scores[number, 0])]
            if not missing:
                continue
            started = time.process_time()
            scores[missing] = scorer.score(schedule, missing)
            seconds += time.process_time() - started
            if done % _WRITE_EVERY == 0:
                _write(options.output, plan, prompts, found, seconds)
                print(f"{done} of {len(wanted)} schedules, {seconds:.0f} s of one core", flush=True)
        _write(options.output, plan, prompts, found, seconds)

    everywhere = len(plan.prompts.search), len(plan.prompts.held_out)
    score(always, *everywhere)
    score([one for one in everything if not plan.budget.allows(plan.price(one))], DEAR_PROMPTS, 0)
    affordable = [one for one in everything if plan.budget.allows(plan.price(one))]
    score(affordable, FAR_PROMPTS, FAR_HELD_OUT)
    score(_near_the_front(plan, affordable, found), *everywhere)


if __name__ == "__main__":
    main()
