"""What solvers and guidance are worth as searched dimensions: ``python -m benchmarks.new_dimensions``.

Each seed runs the search twice on the live model, in the space `free` with all of its dimensions and in `free`
with Euler's rule and the model's own guidance only. Both have the same seed and are read at the same spend, where
the first of the two ends. The front that each would report there is scored on unseen prompts; its hypervolume over
TFLOPs and all objectives reaches to the budget and the scores of two plain steps.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch

import search_spaces
from benchmarks.live_search import LiveScores
from benchmarks.search_efficiency import run_loop
from benchmarks.search_measure import Step, arguments, losses, reference_of
from benchmarks.table import TableExecutor
from studies import SearchSettings
from studies.judge.intervals import paired_score
from studies.judge.pareto import hypervolume
from studies.plan.plan import Plan, make_plan
from tuner.schedule import Schedule
from tuner.tiny.descriptions import captions

FIRST_SEED = 4000  # nothing was ever chosen by how a search with it or a later one does
SEARCH_PROMPTS = 24
UNSEEN_PROMPTS = 64
TRIALS = 60


@dataclass(frozen=True)
class Job:
    """One pair of searches."""

    model: str
    budget: str
    seed: int
    trials: int


def narrow(schedule: Schedule) -> bool:
    """Whether a schedule has none of the new dimensions: Euler's rule alone, and the model's own guidance."""
    return all(
        stage.solver == "euler" and stage.guidance is None and stage.guide is None for stage in schedule.resolved
    )


def plan_of(job: Job) -> Plan:
    """Plans a search with the wide space and unseen prompts of the held-out split."""
    settings = SearchSettings(
        model=job.model,
        budget=job.budget,
        seed=job.seed,
        trials=job.trials,
        search_prompts=SEARCH_PROMPTS,
        rungs=1,
        reuse=False,
    )
    plan = make_plan(settings)
    return replace(plan, prompts=replace(plan.prompts, held_out=tuple(captions("held_out", UNSEEN_PROMPTS))))


def run(job: Job) -> dict[str, float]:
    """Runs both searches of a seed; returns their hypervolumes at equal spend."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    plan = plan_of(job)
    scored = LiveScores(None, plan)
    space = search_spaces.load("free", plan.blueprint, plan.size, plan.budget, narrow)
    plans = {
        "with": plan,
        "without": replace(
            plan,
            space=space,
            references=tuple(one for one in plan.references if narrow(one.schedule)),
        ),
    }
    runs: dict[str, list[Step]] = {}
    for name, each in plans.items():
        with tempfile.TemporaryDirectory() as out:
            runs[name] = run_loop(each, TableExecutor(scored), out)
    spend = min(steps[-1].spent for steps in runs.values())
    reference = reference_of(plan, scored)

    def volume(steps: Sequence[Step]) -> float:
        front = next(step.front for step in reversed(steps) if step.spent <= spend)
        return hypervolume([losses(plan, scored, one, plan.prompts.held_out) for one in front], reference)

    return {"spend": spend} | {name: volume(steps) for name, steps in runs.items()}


def measure(jobs: Sequence[Job], processes: int) -> dict[str, Any]:
    """Runs all pairs; returns plain JSON types."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        rows = list(pool.map(run, jobs))
    found = {name: [row[name] for row in rows] for name in ("with", "without")}
    gain = paired_score(found["with"], found["without"])
    return {
        "model": jobs[0].model,
        "budget": jobs[0].budget,
        "trials": jobs[0].trials,
        "seeds": [job.seed for job in jobs],
        "spend": [row["spend"] for row in rows],
        **found,
        "gain": gain.delta,
        "gain_ci95": gain.ci95,
        "relative_gain": gain.delta / float(np.mean(found["without"])),
    }


def main() -> None:
    """Prints the comparison as JSON."""
    parser = arguments("new_dimensions", __doc__, 5, FIRST_SEED)
    parser.add_argument("--model", default="tiny", choices=("tiny", "tiny-cfg"))
    parser.add_argument("--budget", default="6x")
    parser.add_argument("--trials", type=int, default=TRIALS)
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    jobs = [Job(options.model, options.budget, seed, options.trials) for seed in seeds]
    print(json.dumps(measure(jobs, options.processes), indent=2))


if __name__ == "__main__":
    main()
