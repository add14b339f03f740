"""What a large study costs: ``python -m benchmarks.load --json``.

A search of 10,000 trials runs on 64 simulated workers, whose evaluations take no time. When it is over, it is
resumed, listed, reported and exported. ``--storage`` names a database for the trials, or `postgresql` for a server
that is started for it. An evaluation of presets on 2,000 prompts with four seeds each follows, on one simulated
worker.

As in `benchmarks.driver_cost`, proposals are chosen about some numbers of trials and random in between. The bars:
memory grows by at most a tenth after the first tenth of the trials, a trial takes at most 50 ms of the processor,
and a resume takes less than a minute.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

from benchmarks import postgresql
from benchmarks.busy_workers import propose_at_random
from benchmarks.driver_cost import BAR_MS, evaluate
from benchmarks.simulator import Attempt, Run, SimulatedExecutor
from studies import SearchSettings, search
from studies.evaluate.run import evaluate as evaluate_presets
from studies.evaluate.settings import EvalSettings
from studies.plan.plan import Plan
from studies.propose.proposer import propose
from studies.propose.trial import Trial

WORKERS = 64
WINDOW = 25
GROWTH_BAR = 0.1
RESUME_BAR_S = 60.0
_MIB = 2**20
_STUDY = "load"


class Watch:
    """Chooses some of the proposals, draws the others at random, and notes time and memory at each.

    Args:
        trials: Of the search; about each twentieth part of them, some proposals are chosen.

    Attributes:
        times: Seconds of the processor when each trial was proposed, and the memory of this process in MiB.
    """

    def __init__(self, trials: int):
        self._every = max(2 * WINDOW, trials // 20)
        self.times: dict[int, tuple[float, float]] = {}

    def __call__(self, plan: Plan, visible: Sequence[Trial], pending: Sequence[Trial]) -> Trial:
        """Proposes a trial, instead of `studies.propose.proposer.propose`."""
        number = len(visible) + len(pending)
        self.times[number] = time.process_time(), memory_mib()
        chooses = number >= self._every and number % self._every < WINDOW
        return (propose if chooses else propose_at_random)(plan, visible, pending)

    def rows(self) -> list[dict[str, float]]:
        """Returns the median milliseconds per trial whose proposal is chosen, and memory, as the study grows."""
        rows = []
        for start in range(self._every, max(self.times) - WINDOW, self._every):
            seconds = [self.times[start + i][0] for i in range(WINDOW + 1)]
            spent = 1000 * median(after - before for before, after in itertools.pairwise(seconds))
            rows.append({"trials": start, "cpu_ms_per_trial": spent, "memory_mib": self.times[start][1]})
        return rows


class Forgetful(list[Run]):
    """Takes what the simulated workers did, which nobody asks for here."""

    def append(self, run: Run) -> None:
        """Drops it."""


def memory_mib() -> float:
    """Returns the resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / _MIB


def run(settings: SearchSettings) -> dict[str, Any]:
    """Runs the search in this process."""
    watch = Watch(settings.trials)
    with mock.patch("studies.engine.loop.propose", watch):
        found = resume(settings)
    ended = time.process_time() - watch.times[max(watch.times)][0]
    return found | {"end_cpu_s": ended, "per_trial": watch.rows()}


def resume(settings: SearchSettings) -> dict[str, Any]:
    """Resumes the search in this process, or begins it; ``on_progress`` is called as the command line does."""
    executor = SimulatedExecutor(WORKERS, evaluate, lambda task, crashes: Attempt(1.0))
    executor.runs = Forgetful()
    started, before = time.monotonic(), time.process_time()
    result = search(settings, resume=True, executor=executor, on_progress=lambda progress: None)
    return {
        "seconds": time.monotonic() - started,
        "cpu_seconds": time.process_time() - before,
        "evaluated": len(result.evaluated),
        "front_members": len(result.front),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def run_evaluation(out: str, prompts: int, seeds: int) -> dict[str, Any]:
    """Compares two presets of `tiny` on many prompts, each with several seeds, in this process."""
    file = Path(out) / "prompts.txt"
    file.write_text("".join(f"a red circle, number {number}\n" for number in range(prompts)))
    settings = EvalSettings(
        model="tiny",
        presets=("plain:4", "plain:8"),
        prompts=str(file),
        limit=prompts,
        seeds=seeds,
        out=str(Path(out) / "evaluation"),
    )
    started = time.monotonic()
    evaluate_presets(settings, executor=SimulatedExecutor(1, evaluate, lambda task, crashes: Attempt(1.0)))
    return {
        "images": prompts * seeds,
        "seconds": time.monotonic() - started,
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def timed(*command: str) -> float:
    """Returns the seconds of a command of ``tuner`` in a process of its own."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "tuner", *command], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def part(*arguments: str) -> Any:
    """Runs a part of this benchmark in a process of its own, whose memory is its own."""
    command = [sys.executable, "-m", "benchmarks.load", *arguments]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def measure(trials: int, storage: str | None) -> dict[str, Any]:
    """Runs every part; returns plain JSON types."""
    with tempfile.TemporaryDirectory() as out:
        asked = ["--trials", str(trials), "--out", out, *(["--storage", storage] if storage else [])]
        found: dict[str, Any] = {"trials": trials, "workers": WORKERS, "search": part("--part", "search", *asked)}
        found["resume"] = part("--part", "resume", *asked)
        found["commands_s"] = {
            "tuner studies": timed("studies", "--out", out),
            "tuner report": timed("report", _STUDY, "--out", out),
            "tuner report -o report.html": timed("report", _STUDY, "--out", out, "-o", f"{out}/report.html"),
            "tuner report -o report.png": timed("report", _STUDY, "--out", out, "-o", f"{out}/report.png"),
            "tuner export": timed("export", _STUDY, "--out", out, "-o", f"{out}/preset.yaml"),
        }
        found["evaluation"] = part("--part", "evaluation", *asked)
    return found | {"bars": bars(found)}


def bars(found: Mapping[str, Any]) -> dict[str, Any]:
    """Compares what was found with the bars."""
    rows = [row for row in found["search"]["per_trial"] if row["trials"] * 10 >= found["trials"]]
    growth = rows[-1]["memory_mib"] / rows[0]["memory_mib"] - 1
    slowest = max(row["cpu_ms_per_trial"] for row in rows)
    resumed = found["resume"]["seconds"]
    return {
        "memory_growth": growth,
        "slowest_cpu_ms_per_trial": slowest,
        "resume_s": resumed,
        "met": growth <= GROWTH_BAR and slowest <= BAR_MS and resumed <= RESUME_BAR_S,
    }


def main() -> int:
    """Prints what was measured; returns 1 if a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument(
        "--storage",
        help="a database for the trials, or `postgresql` for a server of its own; by default the journal",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--part", choices=("search", "resume", "evaluation"), help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part == "evaluation":
        print(json.dumps(run_evaluation(options.out, prompts=2000, seeds=4)))
        return 0
    if options.part:
        settings = SearchSettings(
            model="tiny",
            budget="3x",
            trials=options.trials,
            search_prompts=32,
            held_out_prompts=2,
            out=options.out,
            study=_STUDY,
            storage=options.storage,
        )
        print(json.dumps((resume if options.part == "resume" else run)(settings)))
        return 0
    with (
        postgresql.server() if options.storage == "postgresql" else nullcontext((options.storage, None)) as (
            url,
            _,
        )
    ):
        found = measure(options.trials, url)
    print(json.dumps(found, indent=2) if options.json else "\n".join(f"{k}: {v}" for k, v in found.items()))
    return int(not found["bars"]["met"])


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
