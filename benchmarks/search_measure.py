"""How searches are compared: by what they spend until their front is as good, on prompts that nobody saw."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks.table import OBJECTIVES, Scored
from studies.judge.intervals import paired_score
from studies.judge.pareto import hypervolume, nondominated
from studies.plan.plan import Plan
from tuner.schedule import Schedule

EARLY = 1 / 8  # of the best peer's spend


@dataclass(frozen=True)
class Step:
    """Where a search stands after a trial: TFLOPs spent so far, and the front that it would report."""

    spent: float
    front: Sequence[Schedule]


Run = tuple[list[Step], list[float]]
"""A search's steps, and the hypervolume after each."""


def arguments(prog: str, description: str | None, seeds: int, first_seed: int) -> argparse.ArgumentParser:
    """Makes a parser of the options that all comparisons over seeds have."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{prog}", description=description)
    parser.add_argument("--seeds", type=int, default=seeds, help="how many")
    parser.add_argument("--first-seed", type=int, default=first_seed, help="the others follow it")
    parser.add_argument("--processes", type=int, default=1)
    return parser


def means(scored: Scored, schedule: Schedule, prompts: Sequence[str]) -> list[float]:
    """The means of a schedule's scores on some prompts, in the order of the objectives."""
    scores = scored.scores(schedule, prompts)
    return [fmean(scores[name]) for name in OBJECTIVES]


def losses(plan: Plan, scored: Scored, schedule: Schedule, prompts: Sequence[str]) -> list[float]:
    """What an image costs, and the means of the scores, turned so that less is better."""
    return [plan.price(schedule).tflops, *(-mean for mean in means(scored, schedule, prompts))]


def reference_of(plan: Plan, scored: Scored) -> list[float]:
    """The point that hypervolumes reach to: the budget, and two plain steps' losses on the unseen prompts."""
    two_steps = plan.blueprint.plain(2, plan.size)
    return [plan.budget.tflops, *losses(plan, scored, two_steps, plan.prompts.held_out)[1:]]


def steps_of(tried: Iterable[tuple[float, Schedule | None]], plan: Plan, scored: Scored) -> list[Step]:
    """Makes steps of a search that reports the front of its measured scores within the budget.

    Args:
        tried: TFLOPs spent after each trial, and its schedule if it was scored on all of the search's prompts.
        plan: The search.
        scored: Has the scores.
    """
    known: dict[Schedule, list[float]] = {}
    steps: list[Step] = []
    for spent, schedule in tried:
        front = steps[-1].front if steps else ()
        if schedule is not None and schedule not in known and plan.budget.allows(plan.price(schedule)):
            known[schedule] = losses(plan, scored, schedule, plan.prompts.search)
            front = front_of(known)
        steps.append(Step(spent, front))
    return steps


def front_of(known: Mapping[Schedule, Sequence[float]]) -> list[Schedule]:
    """The schedules whose losses no other one's dominate."""
    return list(itertools.compress(known, nondominated(list(known.values()), keep_equal=True)))


def volumes(steps: Sequence[Step], plan: Plan, scored: Scored) -> list[float]:
    """The hypervolume of the front after each step, on the prompts that nobody saw."""
    reference = reference_of(plan, scored)
    unseen = {
        schedule: losses(plan, scored, schedule, plan.prompts.held_out)
        for schedule in dict.fromkeys(schedule for step in steps for schedule in step.front)
    }
    fronts = ([unseen[schedule] for schedule in step.front] for step in steps)
    return [hypervolume(front, reference) if front else 0.0 for front in fronts]


def spent_to_reach(steps: Sequence[Step], found: Sequence[float], target: float) -> float:
    """TFLOPs after which the hypervolume is the target's for the first time; infinite if it never is."""
    return next((step.spent for step, volume in zip(steps, found, strict=True) if volume >= target), np.inf)


def volume_at(steps: Sequence[Step], found: Sequence[float], spent: float) -> float:
    """The hypervolume when so many TFLOPs have been spent."""
    return next((v for step, v in zip(reversed(steps), reversed(found), strict=True) if step.spent <= spent), 0.0)


def compare(
    runs: Mapping[tuple[str, int], Run], peers: Sequence[str], ours: Sequence[str], seeds: Sequence[int]
) -> dict[str, Any]:
    """Compares searches with the best of the peers, seed by seed; returns plain JSON types.

    Args:
        runs: By name and seed.
        peers: Names of those that set the target.
        ours: Names of the others.
        seeds: Those that everyone has a run with.
    """
    final = {name: [runs[name, seed][1][-1] for seed in seeds] for name in peers}
    best = max(final, key=lambda name: float(np.median(final[name])))
    rows = []
    for name in (*peers, *ours):
        ratios, gains, early = [], [], []
        for seed, target in zip(seeds, final[best], strict=True):
            spent = runs[best, seed][0][-1].spent
            steps, found = runs[name, seed]
            ratios.append(spent_to_reach(steps, found, target) / spent)
            gains.append(volume_at(steps, found, spent))
            early.append(volume_at(steps, found, EARLY * spent))
        gain = paired_score(gains, final[best]) if len(seeds) > 1 else None
        rows.append(
            {
                "search": name,
                "tflops_spent": float(np.median([runs[name, seed][0][-1].spent for seed in seeds])),
                "final_hypervolume": float(np.median([runs[name, seed][1][-1] for seed in seeds])),
                "share_of_best_peers_spend": median_with_interval(ratios),
                "shares": [None if np.isinf(ratio) else ratio for ratio in ratios],
                "hypervolume_at_an_eighth": float(np.median(early)),
                "gain_at_equal_spend": gain and gain.delta,
                "gain_ci95": gain and gain.ci95,
            }
        )
    return {"seeds": list(seeds), "best_peer": best, "rows": rows}


def median_with_interval(values: Sequence[float]) -> list[float | None]:
    """The median and the 95 % bootstrap interval of it; None for what was never reached."""
    drawn = np.random.default_rng(0).choice(np.array(values), (2000, len(values)))
    medians = np.sort(np.median(np.where(np.isfinite(drawn), drawn, 1e9), axis=1))
    found = [
        float(np.median(np.where(np.isfinite(values), values, 1e9))),
        *(float(medians[k]) for k in (50, 1949)),
    ]
    return [value if value < 1e6 else None for value in found]


def report(result: dict[str, Any]) -> str:
    """Formats a comparison as a table.

    Args:
        result: What ``compare`` returned, and the numbers of ``trials`` and ``our_trials``.
    """
    seeds = result["seeds"]
    lines = [
        f"{len(seeds)} seeds from {seeds[0]}, {result['trials']} trials, ours {result['our_trials']}; "
        f"the best peer is {result['best_peer']}",
        f"{'':>36}{'TFLOPs':>9}{'volume':>10}{'at 1/8':>10}"
        f"{'spend to reach the best peer':>34}{'gain at its spend':>30}",
    ]
    for row in result["rows"]:
        median, low, high = ("never" if v is None else f"{v:.3f}" for v in row["share_of_best_peers_spend"])
        gain = (
            ""
            if row["gain_ci95"] is None
            else f"{row['gain_at_equal_spend']:+.3g} [{row['gain_ci95'][0]:+.2g}, {row['gain_ci95'][1]:+.2g}]"
        )
        lines.append(
            f"{row['search']:>36}{row['tflops_spent']:>9.3f}{row['final_hypervolume']:>10.3g}"
            f"{row['hypervolume_at_an_eighth']:>10.3g}"
            f"{f'{median} [{low}, {high}]':>34}{gain:>30}"
        )
    return "\n".join(lines)
