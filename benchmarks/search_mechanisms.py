"""What each mechanism of the search is worth: ``python -m benchmarks.search_mechanisms --json``.

Each row is the search on the table of ``benchmarks.table`` with one mechanism replaced or left out. It is compared
with the whole search, seed by seed: the hypervolume at equal spend, on prompts that nobody saw, and the share of
the whole search's spend that it needs to reach the whole search's hypervolume. Equal spend is where the first of
the two ends. The third comparison is the hypervolume after the same number of trials, whatever they cost. The row
``BoTorch`` chooses among the same candidates with a library's process and acquisition
(`benchmarks.botorch_proposals`; ``pip install botorch``); it has fewer trials, since each takes seconds.
"""

from __future__ import annotations

import functools
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.search_efficiency import run_loop
from benchmarks.search_measure import Run, arguments, median_with_interval, spent_to_reach, volume_at, volumes
from benchmarks.table import HELD_OUT_PROMPTS, Table, TableExecutor, TableSpace, table_plan
from studies.judge.intervals import paired_score
from studies.plan.plan import Plan
from studies.propose import proposer, surrogate
from studies.propose.improvement import Array

FIRST_SEED = 2000  # nothing was ever chosen by how a search with it or a later one does
TRIALS = 200
BOTORCH_TRIALS = 30
WHOLE = "whole search"


@dataclass(frozen=True)
class Variant:
    """A search with one mechanism changed.

    Attributes:
        changed: Changes the mechanism inside the context.
        settings: Settings of the search that differ.
    """

    changed: Callable[[], AbstractContextManager[Any]] = nullcontext
    settings: Mapping[str, Any] = field(default_factory=dict)


class _Linear(surrogate.Warp):
    """The scale of the losses themselves."""

    def forward(self, losses: Array) -> Array:
        return losses

    def inverse(self, warped: Array) -> Array:
        return warped

    def errors(self, losses: Array, errors: Array) -> Array:
        return errors


@contextmanager
def _botorch() -> Iterator[None]:
    from benchmarks import botorch_proposals

    with (
        mock.patch.object(surrogate.Results, "posterior_means", property(botorch_proposals.posterior_means)),
        mock.patch.object(surrogate.Results, "expected_gains", botorch_proposals.expected_gains),
    ):
        yield


VARIANTS = {
    WHOLE: Variant(),
    "without rungs": Variant(settings={"rungs": 1}),
    "without the loss scale": Variant(lambda: mock.patch.object(surrogate, "Warp", _Linear)),
    "headroom of a fiftieth only": Variant(lambda: mock.patch.object(proposer, "_HEADROOMS", (0.02,))),
    "headroom of a quarter only": Variant(lambda: mock.patch.object(proposer, "_HEADROOMS", (0.25,))),
    "without the shortlist": Variant(
        lambda: mock.patch.object(proposer, "shortlist", functools.partial(proposer.shortlist, places=10 * TRIALS))
    ),
    "BoTorch": Variant(_botorch, {"trials": BOTORCH_TRIALS}),
}


@functools.cache
def _table() -> Table:
    return Table()


def _plan(seed: int, settings: Mapping[str, Any]) -> Plan:
    plan = table_plan(seed=seed, reuse=False, **({"trials": TRIALS} | dict(settings)))
    return replace(plan, space=TableSpace(plan))


@dataclass(frozen=True)
class Measured:
    """A search: its steps with their hypervolumes, and milliseconds of the processor for each trial."""

    run: Run
    cpu_ms: float


def run(job: tuple[str, int]) -> Measured:
    """Runs one variant with one seed."""
    name, seed = job
    variant = VARIANTS[name]
    plan = _plan(seed, variant.settings)
    started = time.process_time()
    with tempfile.TemporaryDirectory() as out, variant.changed():
        steps = run_loop(plan, TableExecutor(_table()), out)
    spent = 1000 * (time.process_time() - started) / len(steps)
    return Measured((steps, volumes(steps, plan, _table())), spent)


def measure(seeds: Sequence[int], variants: Sequence[str], processes: int) -> dict[str, Any]:
    """Runs variants and the whole search with every seed; returns plain JSON types."""
    names = list(dict.fromkeys([WHOLE, *variants]))
    jobs = [(name, seed) for seed in seeds for name in names]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        found = dict(zip(jobs, pool.map(run, jobs), strict=True))
    rows = []
    for name in names:
        pairs = [(found[name, seed].run, found[WHOLE, seed].run) for seed in seeds]
        ends = [min(mine[0][-1].spent, whole[0][-1].spent) for mine, whole in pairs]
        at_end = [[volume_at(*run, end) for run in pair] for pair, end in zip(pairs, ends, strict=True)]
        gain = paired_score(*map(list, zip(*at_end, strict=True))) if len(seeds) > 1 else None
        trials = min(len(mine[0]) for mine, _ in pairs)
        counted = [[volumes[trials - 1] for _, volumes in pair] for pair in pairs]
        per_trial = paired_score(*map(list, zip(*counted, strict=True))) if len(seeds) > 1 else None
        shares = [
            spent_to_reach(*mine, target) / spent_to_reach(*whole, target)
            for (mine, whole), (_, target) in zip(pairs, at_end, strict=True)
        ]
        rows.append(
            {
                "search": name,
                "trials": VARIANTS[name].settings.get("trials", TRIALS),
                "tflops_spent": float(np.median([mine[0][-1].spent for mine, _ in pairs])),
                "equal_spend": float(np.median(ends)),
                "hypervolume": float(np.mean([mine for mine, _ in at_end])),
                "gain": gain and gain.delta,
                "gain_ci95": gain and gain.ci95,
                "gain_at_equal_trials": per_trial and per_trial.delta,
                "gain_at_equal_trials_ci95": per_trial and per_trial.ci95,
                "share_of_spend": median_with_interval(shares),
                "cpu_ms_per_trial": float(np.median([found[name, seed].cpu_ms for seed in seeds])),
            }
        )
    return {"seeds": list(seeds), "unseen_prompts": HELD_OUT_PROMPTS, "rows": rows}


def report(result: dict[str, Any]) -> str:
    """Formats the comparison as a table."""
    lines = [
        f"{'':<28}{'TFLOPs':>8}{'gain at equal spend [95 %]':>32}{'at equal trials':>32}"
        f"{'share [95 %]':>22}{'ms':>6}"
    ]
    for row in result["rows"]:
        gain, per_trial, share = "", "", ""
        if row["search"] != WHOLE and row["gain_ci95"]:
            gain, per_trial = (
                f"{row[name]:+.2g} [{row[f'{name}_ci95'][0]:+.2g}, {row[f'{name}_ci95'][1]:+.2g}]"
                for name in ("gain", "gain_at_equal_trials")
            )
            median, low, high = ("never" if v is None else f"{v:.2f}" for v in row["share_of_spend"])
            share = f"{median} [{low}, {high}]"
        lines.append(
            f"{row['search']:<28}{row['tflops_spent']:>8.2f}{gain:>32}{per_trial:>32}{share:>22}"
            f"{row['cpu_ms_per_trial']:>6.0f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Prints the comparison."""
    parser = arguments("search_mechanisms", __doc__, 20, FIRST_SEED)
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), help="rows")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    result = measure(seeds, options.only, options.processes)
    print(json.dumps(result, indent=2) if options.json else report(result))


if __name__ == "__main__":
    main()
