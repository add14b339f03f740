"""`tuner search` against TPE on `tiny` itself, nothing looked up: ``python -m benchmarks.live_search``.

The table of `benchmarks.search_efficiency` is a small world. Here both search the whole space ``free``, as real
numbers, and every score is of an image that is drawn for it. TPE is asked for the raw parameters as a person would
ask who writes an Optuna loop: steps, scale, start, shift and resample mode of each of one to four stages, solver
and reuse. Such a person prices a schedule first, so what is beyond the budget costs it nothing and is none of its
trials. It has 200 trials, ours 400 that cost less. What is measured is what ``benchmarks.search_efficiency`` says.

A seed of either takes about a quarter of an hour of one core. A run that is killed goes on: scores are kept in
``--work``.
"""

from __future__ import annotations

import argparse
import functools
import json
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import torch

from benchmarks.make_table import Scorer
from benchmarks.search_efficiency import OUR_TRIALS, TRIALS, run_loop, silence_optuna, tpe_sampler
from benchmarks.search_measure import Run, Step, compare, means, report, steps_of, volumes
from benchmarks.table import OBJECTIVES, TableExecutor, table_plan
from search_spaces._costs import distinct_scales, reused_steps
from studies.plan.plan import Plan
from tuner.schedule import RESAMPLE_MODES, Schedule, Stage
from tuner.sigmas import partial_sigmas, shift_sigma

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

_MOST_STAGES = 4
_MOST_STEPS = 20
_SEARCH_PROMPTS = 32  # half of the table's, or a seed would take an hour
_UNSEEN_PROMPTS = 128


@functools.cache
def _plan(seed: int) -> Plan:
    return table_plan(
        held_out=_UNSEEN_PROMPTS, seed=seed, trials=OUR_TRIALS, reuse=False, search_prompts=_SEARCH_PROMPTS
    )


class LiveScores:
    """Scores of schedules on the live model, each computed once.

    Args:
        path: File of the known scores, a JSON object per line; None to keep none.
        plan: The search, whose noise is used; by default that of seed 0, as on the table.
    """

    def __init__(self, path: Path | None, plan: Plan | None = None):
        plan = plan or _plan(0)
        self._prompts = (*plan.prompts.search, *plan.prompts.held_out)
        self._scorer = Scorer(plan, self._prompts)
        self._known: dict[tuple[str, str], list[float]] = {}
        if path and path.exists():
            for line in path.read_text().splitlines():
                self._learn(json.loads(line))
        self._path = path

    def scores(self, schedule: Schedule, prompts: Sequence[str]) -> dict[str, list[float]]:
        """See `benchmarks.table.Scored`."""
        missing = [prompt for prompt in prompts if (schedule.content_hash, prompt) not in self._known]
        if missing:
            found = self._scorer.score(schedule, [self._prompts.index(prompt) for prompt in missing])
            line = {"schedule": schedule.content_hash, "scores": dict(zip(missing, found.tolist(), strict=True))}
            self._learn(line)
            if self._path:
                with self._path.open("a") as file:
                    print(json.dumps(line), file=file)
        rows = [self._known[schedule.content_hash, prompt] for prompt in prompts]
        return {name: [row[k] for row in rows] for k, name in enumerate(OBJECTIVES)}

    def _learn(self, line: dict[str, Any]) -> None:
        for prompt, scores in line["scores"].items():
            self._known[line["schedule"], prompt] = scores


def raw(trial: BaseTrial, scales: Sequence[float]) -> Schedule:
    """Asks a trial for everything that a schedule is, whatever it then costs."""
    count = trial.suggest_int("stages", 1, _MOST_STAGES)
    solver = trial.suggest_categorical("solver", ("euler", "heun"))
    every = trial.suggest_int("reuse", 1, 3)
    stages: list[Stage] = []
    for k in range(1, count + 1):
        name = f"{count}.stage{k}"
        start = 1.0 if k == 1 else trial.suggest_float(f"{name}.start", 0.1, 0.98)
        scale = 1.0 if k == count else scales[trial.suggest_int(f"{name}.scale", 0, len(scales) - 1)]
        steps = trial.suggest_int(f"{name}.steps", 1, _MOST_STEPS)
        shift = trial.suggest_float(f"{name}.shift", 0.5, 12.0, log=True)
        resample = trial.suggest_categorical(f"{name}.resample", RESAMPLE_MODES) if k > 1 else "bilinear"
        grid = partial_sigmas(steps, shift_sigma(start, 1 / shift), shift)
        stages.append(
            Stage(
                scale=scale,
                sigmas=(start, *grid[1:]),
                resample=resample if stages and stages[-1].scale != scale else "bilinear",
                reuse=reused_steps(steps, every),
            )
        )
    return Schedule.model_validate({"stages": stages, "solver": solver})


def tpe(seed: int, scored: LiveScores) -> list[Step]:
    """Runs an Optuna loop as a person would write it."""
    silence_optuna()
    plan = _plan(0)
    prompts, scales = plan.prompts.search, distinct_scales(plan.blueprint, plan.size)
    study = optuna.create_study(directions=["maximize", "maximize", "minimize"], sampler=tpe_sampler(seed))
    spent, tried = plan.baseline_price.tflops * len(prompts), list[tuple[float, Schedule]]()
    while len(tried) < TRIALS:
        trial = study.ask()
        schedule = raw(trial, scales)
        price = plan.price(schedule)
        if not plan.budget.allows(price):
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        spent += price.tflops * len(prompts)
        study.tell(trial, [*means(scored, schedule, prompts), price.tflops])
        tried.append((spent, schedule))
    return steps_of(tried, plan, scored)


def ours(seed: int, scored: LiveScores) -> list[Step]:
    """Runs the loop of ``tuner search``."""
    with tempfile.TemporaryDirectory() as out:
        return run_loop(_plan(seed), TableExecutor(scored), out)


SEARCHES = {"Optuna TPE": tpe, "ours": ours}


def _run(job: tuple[str, int, Path]) -> Run:
    name, seed, work = job
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    scored = LiveScores(work / f"{name}-{seed}.jsonl")
    steps = SEARCHES[name](seed, scored)
    return steps, volumes(steps, _plan(0), scored)


def main() -> None:
    """Prints the comparison."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live_search", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("runs/live_search"))
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    seeds = range(options.seeds)
    jobs = [(name, seed) for seed in seeds for name in SEARCHES]
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        found = pool.map(_run, [(*job, options.work) for job in jobs])
        runs = dict(zip(jobs, found, strict=True))
    compared = compare(runs, ["Optuna TPE"], ["ours"], seeds)
    result = {"trials": TRIALS, "our_trials": OUR_TRIALS, **compared}
    print(json.dumps(result, indent=2) if options.json else report(result))


if __name__ == "__main__":
    main()
