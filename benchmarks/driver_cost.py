"""What a trial costs the driver as a study grows: ``python -m benchmarks.driver_cost``.

A whole search runs on simulated workers, whose evaluations take no time, so all that is left is the driver's: to
choose a schedule, hand out the work, log scores and trials, judge, tell. Around some numbers of finished trials
the proposals are chosen, and the time from one to the next is taken; in between they are random, to get there.
The bar is a median of at most 50 ms at 2,000 finished trials, and growth slower than linear.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from unittest import mock

from benchmarks.busy_workers import propose_at_random
from benchmarks.simulator import Attempt, SimulatedExecutor
from studies import SearchSettings, search
from studies.plan.plan import Plan
from studies.propose.proposer import propose
from studies.propose.trial import Trial
from studies.work.task import ChunkResult, Task

SIZES = (250, 500, 1000, 2000)
WINDOW = 25
WORKERS = 8
BAR_MS = 50.0


def timed(times: dict[int, tuple[float, float]]) -> Callable[[Plan, Sequence[Trial], Sequence[Trial]], Trial]:
    """Returns a function that notes the time of every proposal, and chooses a trial where that is of interest."""

    def proposed(plan: Plan, visible: Sequence[Trial], pending: Sequence[Trial]) -> Trial:
        number = len(visible) + len(pending)
        times[number] = time.perf_counter(), time.process_time()
        chooses = any(size <= number <= size + WINDOW for size in SIZES)
        return (propose if chooses else propose_at_random)(plan, visible, pending)

    return proposed


def evaluate(task: Task) -> ChunkResult:
    """Scores that get better with steps and better with the right shift, up to noise of the prompt."""
    last = task.schedule.stages[-1]
    merit = -1 / task.schedule.steps - (last.sigmas[len(last.sigmas) // 2] - 0.6) ** 2
    hashed = int(task.schedule.content_hash, 16) % 1000 / 1e4
    scores = [merit + hashed + math.sin(seed) for seed in task.seeds]
    return ChunkResult({"clip": scores, "image_reward": [score + math.cos(hashed) for score in scores]})


def measure() -> dict[int, tuple[float, float]]:
    """Returns the median milliseconds per trial, on the clock and of the CPU, by the number of finished trials."""
    times: dict[int, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as out, mock.patch("studies.engine.loop.propose", timed(times)):
        settings = SearchSettings(
            model="tiny",
            budget="3x",
            trials=SIZES[-1] + WINDOW + 1,
            out=out,
            search_prompts=32,
            held_out_prompts=2,
        )
        search(settings, executor=SimulatedExecutor(WORKERS, evaluate, lambda task, crashes: Attempt(1.0)))
    return {size: (_median_ms(times, size, 0), _median_ms(times, size, 1)) for size in SIZES}


def _median_ms(times: Mapping[int, tuple[float, float]], size: int, clock: int) -> float:
    started = [times[size + i][clock] for i in range(WINDOW + 1)]
    return 1000 * median(after - before for before, after in itertools.pairwise(started))


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args(arguments)
    medians = measure()
    growth = math.log(medians[SIZES[-1]][1] / medians[SIZES[0]][1]) / math.log(SIZES[-1] / SIZES[0])
    if options.json:
        rows = [{"finished": n, "median_ms": wall, "median_cpu_ms": cpu} for n, (wall, cpu) in medians.items()]
        json.dump({"per_trial": rows, "growth_exponent": growth, "bar_ms": BAR_MS}, sys.stdout, indent=2)
        print()
        return
    for size, (wall, cpu) in medians.items():
        print(f"{size:5d} finished trials: {wall:6.1f} ms per trial, of which {cpu:6.1f} ms of the CPU")
    print(f"CPU time grows as trials to the power {growth:.2f}; the bar is {BAR_MS:.0f} ms at {SIZES[-1]}")


if __name__ == "__main__":
    main()
