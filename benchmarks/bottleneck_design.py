"""What going down and up again is worth at equal cost: ``python -m benchmarks.bottleneck_design``.

Three searches of `tiny` have the same budget, trials, prompts and noise, and Euler's rule throughout. One may only
propose schedules that go from full size down and back (Bottleneck Sampling, arXiv 2503.18940), one only schedules
that begin smaller and grow, and one only plain ones. The schedule of each with the highest reward on the search
prompts is then scored on prompts that no search saw, and compared with the best plain one, prompt by prompt.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from typing import Any

import torch

import search_spaces
from benchmarks.live_search import LiveScores
from benchmarks.new_dimensions import narrow
from benchmarks.search_efficiency import run_loop
from benchmarks.search_measure import arguments, means
from benchmarks.table import OBJECTIVES, TableExecutor
from studies import SearchSettings
from studies.judge.intervals import paired_score
from studies.plan.plan import Plan, make_plan
from studies.report.tables import shorthand
from tuner import presets
from tuner.schedule import Schedule
from tuner.tiny.descriptions import captions

FIRST_SEED = 5000  # nothing was ever chosen by how a search with it or a later one does
SEARCH_PROMPTS = 32
UNSEEN_PROMPTS = 256
TRIALS = 60
PUBLISHED = "bottleneck-flux-3x"


def plain(schedule: Schedule) -> bool:
    """Whether there is one stage."""
    return len(schedule.stages) == 1


def low_high(schedule: Schedule) -> bool:
    """Whether the first stage is smaller than the last, and none is smaller than the one before."""
    scales = [stage.scale for stage in schedule.stages]
    return scales[0] < scales[-1] and scales == sorted(scales)


def high_low_high(schedule: Schedule) -> bool:
    """Whether the first and last stage have full size, and one between them is smaller."""
    scales = [stage.scale for stage in schedule.stages]
    return scales[0] == scales[-1] == 1 and min(scales) < 1


DESIGNS: dict[str, tuple[str, Callable[[Schedule], bool]]] = {
    "plain": ("plain", plain),
    "low-high": ("progressive", low_high),
    "high-low-high": ("bottleneck", high_low_high),
}


@dataclass(frozen=True)
class Only:
    """A target that carries schedules of one design with Euler's rule; see `studies.plan.target.Target`."""

    design: str

    def carries(self, schedule: Schedule) -> bool:
        """Whether a schedule is of the design."""
        return narrow(schedule) and DESIGNS[self.design][1](schedule)


def plan_of(design: str, seed: int, trials: int) -> Plan:
    """Plans a search of one design."""
    space, only = DESIGNS[design][0], Only(design)
    plan = make_plan(
        SearchSettings(
            model="tiny",
            budget="3x",
            seed=seed,
            trials=trials,
            space=space,
            search_prompts=SEARCH_PROMPTS,
            rungs=1,
            reuse=False,
        )
    )
    return replace(
        plan,
        prompts=replace(plan.prompts, held_out=tuple(captions("held_out", UNSEEN_PROMPTS))),
        space=search_spaces.load(space, plan.blueprint, plan.size, plan.budget, narrow),
        references=tuple(one for one in plan.references if only.carries(one.schedule)),
        target=only,  # type: ignore[arg-type]  # a search asks a target for `carries` alone
    )


def best_of(design: str, seed: int, trials: int) -> dict[str, Any]:
    """Searches one design; returns its best schedule and that schedule's scores on unseen prompts."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    plan = plan_of(design, seed, trials)
    scored = LiveScores(None, plan)
    with tempfile.TemporaryDirectory() as out:
        steps = run_loop(plan, TableExecutor(scored), out)
    reward = OBJECTIVES.index("image_reward")
    best = max(steps[-1].front, key=lambda one: means(scored, one, plan.prompts.search)[reward])
    return row_of(design, best, plan, scored) | {"searched": steps[-1].spent}


def row_of(name: str, schedule: Schedule, plan: Plan, scored: LiveScores) -> dict[str, Any]:
    """Scores a schedule on the unseen prompts."""
    return {
        "design": name,
        "schedule": schedule.model_dump(mode="json", exclude_defaults=True),
        "stages": shorthand(schedule),
        "tflops": plan.price(schedule).tflops,
        "scores": scored.scores(schedule, plan.prompts.held_out),
    }


def published(seed: int) -> dict[str, Any]:
    """Scores the published preset."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    plan = plan_of("high-low-high", seed, 0)
    scored = LiveScores(None, plan)
    return row_of(PUBLISHED, presets.load(PUBLISHED).schedule, plan, scored)


def measure(seed: int, trials: int, processes: int) -> dict[str, Any]:
    """Runs the three searches; returns plain JSON types."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        rows = list(pool.map(partial(best_of, seed=seed, trials=trials), DESIGNS))
        rows.append(pool.submit(published, seed).result())
    first = rows[0]["scores"]
    for row in rows:
        scores = row.pop("scores")
        for name, values in scores.items():
            found = paired_score(values, first[name])
            row[name] = {"mean": found.mean, "against_plain": found.delta, "ci95": found.ci95}
    return {"seed": seed, "trials": trials, "unseen_prompts": UNSEEN_PROMPTS, "rows": rows}


def report(result: dict[str, Any]) -> str:
    """Formats the comparison as a Markdown table."""
    header = ["design", "steps@scale", "TFLOPs", *OBJECTIVES]
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for row in result["rows"]:
        cells = [row["design"], row["stages"], f"{row['tflops']:.4g}"]
        for name in OBJECTIVES:
            one = row[name]
            low, high = one["ci95"]
            cells.append(f"{one['mean']:.3f}, {one['against_plain']:+.3f} [{low:+.3f}, {high:+.3f}]")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Prints the comparison."""
    parser = arguments("bottleneck_design", __doc__, 1, FIRST_SEED)
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        result = measure(seed, options.trials, options.processes)
        print(json.dumps(result, indent=2) if options.json else report(result))


if __name__ == "__main__":
    main()
