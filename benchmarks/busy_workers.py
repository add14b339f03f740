"""How busy a search keeps its workers, by their number, rungs and lag: ``python -m benchmarks.busy_workers``.

Whole searches run on simulated workers with a virtual clock: a unit of work takes 30 s, and one in ten three times
as long. A schedule has 32 prompts. Scores are made up so that most schedules are left after the first rung, and
proposals are random, to be done soon: what is proposed does not decide how long it takes. The share is that of all
workers' time until the last proposal begins; from then on they run idle, as they must.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Sequence
from typing import Any
from unittest import mock

from benchmarks.simulator import Attempt, SimulatedExecutor
from studies import SearchSettings, search
from studies.plan.plan import Plan
from studies.propose.proposer import draw, generator, promotions, waiting_references
from studies.propose.shortlist import shortlist
from studies.propose.trial import Trial
from studies.work.task import ChunkResult, Task
from tuner.cli._common import print_table

PROMPTS = 32
SEARCHES = (
    (4, 8, 1, 3),
    (4, 8, 2, 3),
    (4, 8, 2, 6),
    (16, 8, 1, 12),
    (16, 8, 2, 12),
    (16, 8, 2, 24),
    (64, 32, 1, 12),
    (64, 32, 2, 12),
    (64, 32, 2, 24),
)
"""Workers, units of work of a whole schedule, rungs and lag of each."""


def propose_at_random(plan: Plan, visible: Sequence[Trial], pending: Sequence[Trial]) -> Trial:
    """Proposes the references, then promotions, and then at random, which takes no time."""
    started = [*visible, *pending]
    waiting = waiting_references(plan, started)
    promoted = promotions(plan, shortlist(visible), started)
    drawn = draw(plan, started, generator(plan, len(started)), (), 1)
    return [*waiting, *promoted, *drawn][0]


def evaluate(task: Task) -> ChunkResult:
    """A merit of the schedule, and less of what the prompt adds to it."""
    merit = random.Random(task.schedule.content_hash).random()
    noise = [random.Random(f"{task.schedule.content_hash}/{seed}") for seed in task.seeds]
    return ChunkResult({name: [merit + one.gauss(0, 0.3) for one in noise] for name in ("clip", "image_reward")})


def fate(task: Task, crashes: int) -> Attempt:
    """Half a minute; one task in ten takes three times as long."""
    return Attempt(90.0 if random.Random(repr(task.key)).random() < 0.1 else 30.0)


def measure(workers: int, units: int, rungs: int, lag: int) -> dict[str, Any]:
    """Runs one search, long enough for the workers to be busy for most of it, and returns plain JSON types."""
    executor = SimulatedExecutor(workers, evaluate, fate)
    with tempfile.TemporaryDirectory() as out, mock.patch("studies.engine.loop.propose", propose_at_random):
        settings = SearchSettings(
            model="tiny",
            budget="3x",
            trials=max(80, 6 * lag),
            out=out,
            search_prompts=PROMPTS,
            held_out_prompts=2,
            chunk=PROMPTS // units,
            rungs=rungs,
            lag=lag,
        )
        result = search(settings, executor=executor)
    searched = [run for run in executor.runs if run.task.seeds[0] < PROMPTS]
    begun = {run.task.schedule: run.start for run in reversed(searched)}
    stopped = sum(candidate.stopped_at is not None for candidate in result.evaluated)
    return {
        "workers": workers,
        "units": units,
        "rungs": rungs,
        "lag": lag,
        "units_run": len({run.task.key for run in searched}) / len(begun),  # images are drawn again at the end
        "busy": executor.busy_share(max(begun.values())),
        "stopped": stopped / len(result.evaluated),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args(arguments)
    rows = [measure(*one) for one in SEARCHES]
    if options.json:
        json.dump({"searches": rows}, sys.stdout, indent=2)
        print()
        return
    print_table(
        ["workers", "units per schedule", "rungs", "lag", "schedules left", "units run", "workers busy"],
        [
            (
                *(row[name] for name in ("workers", "units", "rungs", "lag")),
                f"{row['stopped']:.0%}",
                f"{row['units_run']:.1f}",
                f"{row['busy']:.1%}",
            )
            for row in rows
        ],
    )


if __name__ == "__main__":
    main()
