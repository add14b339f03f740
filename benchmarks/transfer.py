"""What earlier studies save: ``python -m benchmarks.transfer --json``.

The search is that of ``benchmarks.search_efficiency``, on the table of `tiny` at 64 pixels. It learns from one
earlier study of the same space on another model, drawn live: `tiny` at 48 pixels, or `tiny-cfg`, which makes two
passes. What the earlier study spent is not counted. With a misleading study, the results of the earlier one are
dealt out to its schedules at random, for each seed in another way. The target is the hypervolume on unseen prompts
that the search without an earlier study has after as many trials as a search makes by default. Everyone is read
where it first has that, and where it has spent a quarter more than the baseline, which every search scores first.
"""

from __future__ import annotations

import functools
import json
import random
import tempfile
from collections.abc import Sequence
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
from benchmarks.table import Table, TableExecutor, TableSpace, table_plan
from studies.plan.knowledge import Knowledge, KnownObjective
from studies.plan.plan import Plan
from studies.records.lessons import finding_of

FIRST_SEED = 6000  # nothing was ever chosen by how a search with it or a later one does
TRIALS = 90
TARGET_AFTER = 60  # trials of the search without
EARLY = 1.25  # of the baseline's cost, which every search pays first
EARLIER_TRIALS = 40
EARLIER_PROMPTS = 16
UNSEEN_PROMPTS = 128
EARLIER: dict[str, dict[str, Any]] = {
    "tiny at 48 pixels": {"size": (48, 48)},
    "tiny-cfg": {"model": "tiny-cfg"},
}
MISLEADING = "misleading: "
_EARLY = "early: "
ROWS = ("without", *EARLIER, MISLEADING + next(iter(EARLIER)))


def earlier_study(name: str, work: Path) -> Knowledge:
    """Runs the earlier study on live images, once; later calls read what it found out."""
    file = work / f"{name.replace(' ', '-')}.json"
    if not file.exists():
        torch.set_num_threads(1)
        torch.set_grad_enabled(False)
        changed = {"search_prompts": EARLIER_PROMPTS, "rungs": 1, "trials": EARLIER_TRIALS, "reuse": False}
        plan = table_plan(held_out=2, seed=4999, **EARLIER[name], **changed)
        prompts = replace(plan.prompts, search=_plan(0).prompts.search[-EARLIER_PROMPTS:])
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
def _table() -> Table:
    return Table()


@functools.cache
def _plan(seed: int) -> Plan:
    return table_plan(seed=seed, trials=TRIALS, reuse=False)


def searched(row: str, seed: int, work: Path) -> list[Step]:
    """Runs a search on the table."""
    learnt: tuple[Knowledge, ...] = ()
    if row != "without":
        known = earlier_study(row.removeprefix(MISLEADING), work)
        learnt = (misleading(known, seed) if row.startswith(MISLEADING) else known,)
    plan = replace(_plan(seed), learnt=learnt)
    plan = replace(plan, space=TableSpace(plan))
    with tempfile.TemporaryDirectory() as out:
        return run_loop(plan, TableExecutor(_table()), out)


def run(job: tuple[int, Path]) -> dict[str, float]:
    """Returns the TFLOPs that each search of a seed takes to the target."""
    seed, work = job
    file = work / f"seed-{seed}.json"
    if file.exists():
        known: dict[str, float] = json.loads(file.read_text())
        return known
    plan = _plan(0)
    plan = replace(plan, prompts=replace(plan.prompts, held_out=plan.prompts.held_out[:UNSEEN_PROMPTS]))
    runs = {row: searched(row, seed, work) for row in ROWS}
    reached = {row: volumes(steps, plan, _table()) for row, steps in runs.items()}
    target = reached["without"][TARGET_AFTER - 1]
    early = EARLY * plan.baseline_price.tflops * len(plan.prompts.search)
    found = {row: spent_to_reach(steps, reached[row], target) for row, steps in runs.items()}
    found |= {_EARLY + row: volume_at(steps, reached[row], early) for row, steps in runs.items()}
    file.write_text(json.dumps(found))
    return found


def measure(seeds: Sequence[int], processes: int, work: Path) -> dict[str, Any]:
    """Runs everyone with every seed; returns plain JSON types."""
    work.mkdir(parents=True, exist_ok=True)
    for name in EARLIER:
        earlier_study(name, work)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        found = list(pool.map(run, [(seed, work) for seed in seeds]))
    rows = []
    for row in ROWS:
        ratios = [one[row] / one["without"] for one in found]
        spent = [one[row] for one in found]
        rows.append(
            {
                "search": row,
                "median_tflops": median_with_interval(spent)[0],
                "reached": int(np.isfinite(spent).sum()),
                "share_of_without": median_with_interval(ratios),
                "early_hypervolume": float(np.median([one[_EARLY + row] for one in found])),
                "shares": [ratio if np.isfinite(ratio) else None for ratio in ratios],
            }
        )
    return {"seeds": list(seeds), "trials": TRIALS, "target_after": TARGET_AFTER, "rows": rows}


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
            f"{row['search']:>32}{spent:>10}{row['reached']:>9}{share:>36}{row['early_hypervolume']:>10.5f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Prints the comparison."""
    parser = arguments("transfer", __doc__, 20, FIRST_SEED)
    parser.add_argument("--work", type=Path, default=Path("runs/transfer"), help="keeps what is finished")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    result = measure(seeds, options.processes, options.work)
    print(json.dumps(result, indent=2) if options.json else report(result))


if __name__ == "__main__":
    main()
