"""What earlier studies save: ``python -m benchmarks.transfer --json``.

The search is that of ``benchmarks.search_efficiency``, on one of three targets: `tiny` at 64 pixels, whose scores
are those of the table; `tiny` at 48 pixels; or `tiny-cfg`, which makes two passes. For the latter two, a schedule
of the table is scored on the live model when a search asks for it first, and its scores are kept for all later
searches; there are 32 prompts and 32 unseen ones instead of 64 and 128. The search learns from one earlier study
of the same space on another model, drawn live. What the earlier study spent is not counted. With a misleading
study, the results of the earlier one are dealt out to its schedules at random, for each seed in another way. The
goal is the hypervolume on unseen prompts that the search without an earlier study has after as many trials as a
search makes by default. Everyone is read where it first has that, and where it has spent a quarter more than the
baseline, which every search scores first.
"""

from __future__ import annotations

import functools
import json
import random
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.live_search import LiveScores
from benchmarks.search_efficiency import looped, run_loop
from benchmarks.search_measure import Step, arguments, median_with_interval, spent_to_reach, volume_at, volumes
from benchmarks.table import Scored, Table, TableExecutor, TableSpace, table_plan
from studies.plan.knowledge import Knowledge, KnownObjective
from studies.plan.plan import Plan
from studies.records.lessons import finding_of

FIRST_SEED = 6000  # nothing was ever chosen by how a search with it or a later one does
TRIALS = 90
GOAL_AFTER = 60  # trials of the search without
EARLY = 1.25  # of the baseline's cost, which every search pays first
EARLIER_TRIALS = 40
EARLIER_PROMPTS = 16
UNSEEN_PROMPTS = 128
LIVE_PROMPTS = 32  # and as many unseen ones, as every image is drawn
MODELS: dict[str, dict[str, Any]] = {
    "tiny": {},
    "tiny at 48 pixels": {"size": (48, 48)},
    "tiny-cfg": {"model": "tiny-cfg"},
}
ON_TABLE = "tiny"
EARLIER = {"tiny": ("tiny at 48 pixels", "tiny-cfg"), "tiny at 48 pixels": ("tiny",), "tiny-cfg": ("tiny",)}
"""The models that searches on each target learn from."""
MISLEADING = "misleading: "
_EARLY = "early: "


def rows(target: str) -> tuple[str, ...]:
    """Lists the searches on a target."""
    return ("without", *EARLIER[target], MISLEADING + EARLIER[target][0])


def earlier_study(name: str, work: Path) -> Knowledge:
    """Runs the earlier study on live images, once; later calls read what it found out."""
    file = work / f"{name.replace(' ', '-')}.json"
    if not file.exists():
        changed = {"search_prompts": EARLIER_PROMPTS, "rungs": 1, "trials": EARLIER_TRIALS, "reuse": False}
        plan = table_plan(held_out=2, seed=4999, **MODELS[name], **changed)
        prompts = replace(plan.prompts, search=_plan(ON_TABLE, 0).prompts.search[-EARLIER_PROMPTS:])
        plan = replace(plan, space=TableSpace(plan), prompts=prompts)
        with tempfile.TemporaryDirectory() as out:
            loop, _ = looped(plan, TableExecutor(LiveScores(None, plan)), out)
        names, price = list(plan.directions), plan.baseline_price
        specs = zip(plan.directions.items(), plan.objectives, strict=True)
        knowledge = Knowledge(
            study=name,
            model=plan.settings.model,
            size=plan.size,
            frames=None,
            calls=sum(stage.calls for stage in price.stages),
            objectives=tuple(KnownObjective(name=one, spec=spec, direction=way) for (one, way), spec in specs),
            results=tuple(
                finding_of(one, names, price.tflops, price.nfe, EARLIER_PROMPTS) for one in loop.candidates
            ),
        )
        file.write_text(knowledge.model_dump_json())
    return Knowledge.model_validate_json(file.read_text())


def misleading(known: Knowledge, seed: int) -> Knowledge:
    """Deals the results of a study out to its schedules at random."""
    dealt = [one.differences for one in known.results]
    random.Random(seed).shuffle(dealt)
    pairs = zip(known.results, dealt, strict=True)
    results = tuple(one.model_copy(update={"differences": other}) for one, other in pairs)
    return known.model_copy(update={"results": results})


@functools.cache
def _scored(target: str, work: Path) -> Scored:
    """The scores of a target: those of the table, or of the live model, kept in a file."""
    if target == ON_TABLE:
        return Table()
    return LiveScores(work / f"{target.replace(' ', '-')}.jsonl", _plan(target, 0))


@functools.cache
def _plan(target: str, seed: int) -> Plan:
    fewer = {} if target == ON_TABLE else {"search_prompts": LIVE_PROMPTS}
    unseen = UNSEEN_PROMPTS if target == ON_TABLE else LIVE_PROMPTS
    return table_plan(held_out=unseen, seed=seed, trials=TRIALS, reuse=False, **fewer, **MODELS[target])


def searched(target: str, row: str, seed: int, work: Path) -> list[Step]:
    """Runs a search on a target."""
    learnt: tuple[Knowledge, ...] = ()
    if row != "without":
        known = earlier_study(row.removeprefix(MISLEADING), work)
        learnt = (misleading(known, seed) if row.startswith(MISLEADING) else known,)
    plan = replace(_plan(target, seed), learnt=learnt)
    plan = replace(plan, space=TableSpace(plan))
    with tempfile.TemporaryDirectory() as out:
        return run_loop(plan, TableExecutor(_scored(target, work)), out)


def run(job: tuple[str, int, Path]) -> dict[str, float]:
    """Returns the TFLOPs that each search of a seed takes to the goal, and what it has early."""
    target, seed, work = job
    file = work / f"{target.replace(' ', '-')}-seed-{seed}.json"
    if file.exists():
        known: dict[str, float] = json.loads(file.read_text())
        return known
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    plan, scored = _plan(target, 0), _scored(target, work)
    runs = {row: searched(target, row, seed, work) for row in rows(target)}
    reached = {row: volumes(steps, plan, scored) for row, steps in runs.items()}
    goal = reached["without"][GOAL_AFTER - 1]
    early = EARLY * plan.baseline_price.tflops * len(plan.prompts.search)
    found = {row: spent_to_reach(steps, reached[row], goal) for row, steps in runs.items()}
    found |= {_EARLY + row: volume_at(steps, reached[row], early) for row, steps in runs.items()}
    file.write_text(json.dumps(found))
    return found


def measure(target: str, seeds: Sequence[int], processes: int, work: Path) -> dict[str, Any]:
    """Runs everyone on a target with every seed; returns plain JSON types.

    Args:
        target: One of `EARLIER`.
        seeds: Of the searches.
        processes: How many at a time on the table; live scores are kept by one.
        work: Folder of earlier studies, live scores and finished seeds.
    """
    work.mkdir(parents=True, exist_ok=True)
    jobs = [(target, seed, work) for seed in seeds]
    with ProcessPoolExecutor(processes if target == ON_TABLE else 1, mp_context=get_context("spawn")) as pool:
        list(pool.map(_prepare, [(name, work) for name in EARLIER[target]]))
        found = list(pool.map(run, jobs))
    return {"target": target, "seeds": list(seeds), "trials": TRIALS, "goal_after": GOAL_AFTER} | summary(
        target, found
    )


def _prepare(job: tuple[str, Path]) -> None:
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    earlier_study(*job)


def summary(target: str, found: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Compares the searches on a target with the one without an earlier study, seed by seed."""
    compared = []
    for row in rows(target):
        ratios = [one[row] / one["without"] for one in found]
        spent = [one[row] for one in found]
        compared.append(
            {
                "search": row,
                "median_tflops": median_with_interval(spent)[0],
                "reached": int(np.isfinite(spent).sum()),
                "share_of_without": median_with_interval(ratios),
                "early_hypervolume": float(np.median([one[_EARLY + row] for one in found])),
                "early_gain": median_with_interval([one[_EARLY + row] - one[_EARLY + "without"] for one in found]),
                "shares": [ratio if np.isfinite(ratio) else None for ratio in ratios],
            }
        )
    return {"rows": compared}


def report(result: dict[str, Any]) -> str:
    """Formats the result as a table."""
    lines = [
        f"{'learns from':>32}{'TFLOPs':>10}{'reached':>9}{'share of the search without':>36}{'early volume':>14}"
    ]
    for row in result["rows"]:
        shown = ("never" if value is None else f"{value:.3f}" for value in row["share_of_without"])
        median, low, high = shown
        spent = "never" if row["median_tflops"] is None else f"{row['median_tflops']:.3f}"
        share = f"{median} [{low}, {high}]"
        lines.append(
            f"{row['search']:>32}{spent:>10}{row['reached']:>9}{share:>36}{row['early_hypervolume']:>14.5f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Prints the comparison."""
    parser = arguments("transfer", __doc__, 20, FIRST_SEED)
    parser.add_argument("--work", type=Path, default=Path("runs/transfer"), help="keeps what is finished")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--target", choices=list(EARLIER), default=ON_TABLE, help="the model of the search")
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    result = measure(options.target, seeds, options.processes, options.work)
    print(json.dumps(result, indent=2) if options.json else report(result))


if __name__ == "__main__":
    main()
