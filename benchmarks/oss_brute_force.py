"""How far Optimal Stepsize's recursion is from the optimum: every way of few steps through few levels is walked.

``python -m benchmarks.oss_quality --brute-force`` prints it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import torch

from tuner.distill.oss import BatchedNetwork
from tuner.distill.rule import Rule, Trail
from tuner.distill.steps import Settings, best_steps
from tuner.distill.table import Distance
from tuner.distill.teacher import Teacher, mean_square, walk
from tuner.models import FlowModel
from tuner.tiny.scenes import captions

LEVELS = 12
COUNTS = (3, 4, 5)
PROMPTS = 4
SOLVERS = ("euler", "dpmpp-2m")


def every_way(rule: Rule, teacher: Teacher, most_steps: int) -> Iterator[tuple[tuple[int, ...], torch.Tensor]]:
    """Walks all ways of 1 to ``most_steps`` steps; yields each with its end, (P, ...).

    The network is asked once about every beginning.
    """
    everyone = [0] * len(teacher.x[0])
    open_ways: list[Trail] = [rule.first(teacher.velocity[0])]
    while open_ways:
        trail = open_ways.pop()
        way = tuple(trail.ways[0].tolist())
        yield (*way, teacher.steps), rule.step(trail, teacher.steps)
        if len(way) < most_steps:
            open_ways.extend(
                rule.asked(rule.land([trail], everyone, level, rule.step(trail, level)))
                for level in range(way[-1] + 1, teacher.steps)
            )


def least_costs(rule: Rule, teacher: Teacher) -> dict[int, float]:
    """Finds the least mean cost that a schedule of each number of steps can have."""
    least = dict.fromkeys(COUNTS, np.inf)
    for way, end in every_way(rule, teacher, max(COUNTS)):
        if (steps := len(way) - 1) in least:
            least[steps] = min(least[steps], float(mean_square(end - teacher.x[-1], kept=1).mean()))
    return least


def searches() -> dict[str, Settings]:
    """Names the ways of searching."""
    found: dict[str, Settings] = {}
    for distance in get_args(Distance):
        settings = Settings(teacher_steps=LEVELS, distance=distance)
        found |= {distance: settings, f"{distance}, polished": replace(settings, polish=True)}
    return found


def measure_exactness(model: FlowModel, sets: int) -> dict[str, Any]:
    """Measures each search's excess over the least cost, as a fraction of it, on sets of prompts of their own."""
    started = time.monotonic()
    excess: dict[str, dict[str, dict[int, list[float]]]] = {}
    for solver in SOLVERS:
        of_solver = excess[solver] = {name: {count: [] for count in COUNTS} for name in searches()}
        for first in range(0, sets * PROMPTS, PROMPTS):
            prompts = captions("search", first + PROMPTS)[first:]
            network = BatchedNetwork(model, model.encode(prompts), PROMPTS)
            noise = model.noise(model.blueprint.size, range(first, first + PROMPTS))
            teacher = walk(network, noise, model.blueprint.sigmas(LEVELS, model.blueprint.size))
            least = least_costs(Rule(solver, teacher.sigmas, network, noise), teacher)
            for name, settings in searches().items():
                results = best_steps(network, teacher, COUNTS, replace(settings, solver=solver))
                for count, one in results.items():
                    of_solver[name][count].append(one.cost / least[count] - 1)
    return {"sets": sets, "excess": excess, "seconds": round(time.monotonic() - started, 1)}


def report_exactness(result: dict[str, Any]) -> str:
    """Formats what ``measure_exactness`` returned."""
    lines = [f"{'mean (most) excess':28}" + "".join(f"{count:>16} steps" for count in COUNTS)]
    for solver, searches_ in result["excess"].items():
        for name, counts in searches_.items():
            cells = (f"{100 * np.mean(found):.1f} % ({100 * max(found):.0f} %)" for found in counts.values())
            lines.append(f"{f'{solver}, {name}':28}" + "".join(f"{cell:>22}" for cell in cells))
    lines.append(
        f"\nCost above the least of all schedules on the same {LEVELS} levels; {result['sets']} sets of {PROMPTS} "
        f"prompts, {result['seconds']} s"
    )
    return "\n".join(lines)
