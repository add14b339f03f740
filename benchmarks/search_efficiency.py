"""What a search costs beside the loops that people write: ``python -m benchmarks.search_efficiency --json``.

Everyone has the same space, prompts, noise, budget and scores, those of ``benchmarks.table``. The peers are
Optuna's TPE and NSGA-II (told which schedules are beyond the budget), random search, and Ray Tune's OptunaSearch,
asked and told without Tune's own runner, which takes seconds per trial. NSGA-II is asked for all parameters of all
numbers of stages: it models only those that every trial has, and of a single one (the number of stages) it mutates
every value, which makes it random search. They score each proposal on all prompts,
whatever it costs. Ours is the loop of ``tuner search``.

Spent are the denoiser TFLOPs of everything, the baseline and stopped candidates included; a schedule that comes
again costs a peer nothing, as if it kept its scores. Peers have 200 trials; ours cost less, so it has more, and
what it has found is read where it has spent as much as a peer. The hypervolume is that of the front on the
search's prompts, scored again on prompts that nobody saw; its reference point is the budget and plain sampling
with two steps. The last row is what no search can do: it knows the table.
"""

from __future__ import annotations

import argparse
import functools
import json
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any
from unittest import mock

import numpy as np
import optuna

from benchmarks.table import (
    OBJECTIVES,
    Scored,
    Table,
    TableExecutor,
    TableSpace,
    raw,
    schedule_of,
    schedules,
    settings,
)
from studies import features
from studies.evaluations import Evaluations
from studies.gaussian import BANDS
from studies.loop import Loop
from studies.pareto import dominators
from studies.plan import Plan, make_plan
from studies.scores import EarlierScores, ScoreLog
from studies.statistics import paired_score
from studies.stopping import hypervolume
from studies.storage import TrialRecord
from studies.store import start_study
from tuner.schedule import Schedule

TRIALS = 200
OUR_TRIALS = 320  # which cost somewhat more than those of a peer
MECHANISMS = ("budget by construction", "warm start", "rungs", "kept stages", "Gaussian data")
EARLY = 1 / 8  # of the best peer's spend
EARLIER_BUDGET = "6x"  # of the study whose scores the row with earlier scores starts from


@dataclass(frozen=True)
class Step:
    """What a search knows after a trial: TFLOPs spent so far, and the schedule if it has a full score."""

    spent: float
    schedule: Schedule | None


Search = Callable[[int], list[Step]]


@functools.cache
def _table() -> Table:
    return Table()


@functools.cache
def _plan(seed: int, **changes: Any) -> Plan:
    return make_plan(settings("runs", seed=seed, trials=OUR_TRIALS, reuse=False, **changes))


def means(scored: Scored, schedule: Schedule, prompts: Sequence[str]) -> list[float]:
    """The means of a schedule's scores on some prompts, in the order of the objectives."""
    scores = scored.scores(schedule, prompts)
    return [fmean(scores[name]) for name in OBJECTIVES]


def peer(kind: str, seed: int) -> list[Step]:
    """Runs a loop as a person would write it."""
    silence_optuna()
    plan = _plan(0)
    prompts = plan.prompts.search
    spent, known, steps = plan.baseline_price.tflops * len(prompts), set(), []
    for schedule, tell in (_ray_search if kind == "Ray Tune OptunaSearch" else _optuna_loop)(kind, seed):
        price = plan.price(schedule)
        spent += 0.0 if schedule in known else price.tflops * len(prompts)
        known.add(schedule)
        tell([*means(_table(), schedule, prompts), price.tflops], plan.budget.allows(price))
        steps.append(Step(spent, schedule))
    return steps


def silence_optuna() -> None:
    """Leaves out a line per trial, and warnings of what is experimental."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")


def tpe_sampler(seed: int) -> optuna.samplers.BaseSampler:
    """TPE as well set up as we know: parameters modelled jointly, and by groups that trials have in common."""
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True)


Tell = Callable[[list[float], bool], None]


def _optuna_loop(kind: str, seed: int) -> Iterator[tuple[Schedule, Tell]]:
    samplers: dict[str, Callable[[], optuna.samplers.BaseSampler]] = {
        "Optuna TPE": lambda: tpe_sampler(seed),
        "Optuna NSGA-II": lambda: optuna.samplers.NSGAIISampler(seed=seed, population_size=20),
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
    }
    study = optuna.create_study(directions=["maximize", "maximize", "minimize"], sampler=samplers[kind]())
    for _ in range(TRIALS):
        trial = study.ask()
        schedule = schedule_of(raw(trial, flat=kind == "Optuna NSGA-II"))

        def tell(values: list[float], affordable: bool, trial: optuna.Trial = trial) -> None:
            trial.set_constraint("beyond the budget", 0.0 if affordable else 1.0)
            study.tell(trial, values)

        yield schedule, tell


def _ray_search(kind: str, seed: int) -> Iterator[tuple[Schedule, Tell]]:
    from ray.tune.search.optuna import OptunaSearch

    def space(trial: Any) -> None:
        raw(trial)

    metrics = [*OBJECTIVES, "tflops"]
    searcher = OptunaSearch(space=space, metric=metrics, mode=["max", "max", "min"], sampler=tpe_sampler(seed))
    for number in range(TRIALS):
        indices = searcher.suggest(str(number))

        def tell(values: list[float], affordable: bool, number: int = number) -> None:
            searcher.on_trial_complete(str(number), dict(zip(metrics, values, strict=True)))

        yield schedule_of(raw(_Fixed(indices))), tell


class _Fixed:
    """Answers with given parameters where a trial would choose."""

    def __init__(self, params: dict[str, int]):
        self._params = params

    def suggest_int(self, name: str, low: int, high: int) -> int:
        return self._params[name]


def ours(without: str | None, seed: int) -> list[Step]:
    """Runs the loop of ``tuner search`` on the table, with one of its mechanisms left out."""
    unknown = mock.patch.object(features, "distances", return_value=np.zeros(len(BANDS)))
    with tempfile.TemporaryDirectory() as out, unknown if without == "Gaussian data" else nullcontext():
        return _ours(without, seed, out, ())


def ours_after_another(seed: int) -> list[Step]:
    """Runs the loop with the scores of an earlier study of the same model at hand, which had half the budget."""
    with tempfile.TemporaryDirectory() as out:
        _ours("warm start", seed, f"{out}/earlier", (), budget=EARLIER_BUDGET)
        return _ours(None, seed, out, Path(out).glob("earlier/*/scores.jsonl"))


def _ours(without: str | None, seed: int, out: str, earlier: Iterable[Path], **changes: Any) -> list[Step]:
    plan = _plan(seed, **changes, **({"rungs": 1} if without == "rungs" else {}))
    plan = replace(
        plan,
        space=TableSpace(plan, within_budget=without != "budget by construction"),
        references=() if without == "warm start" else plan.references,
    )
    return run_loop(plan, _table(), out, keep_stages=without != "kept stages", earlier=earlier)


def run_loop(
    plan: Plan, scored: Scored, out: str, keep_stages: bool = True, earlier: Iterable[Path] = ()
) -> list[Step]:
    """Runs the loop of ``tuner search`` on scores that are looked up.

    Args:
        plan: The search.
        scored: Has the scores.
        out: Folder of the study.
        keep_stages: Whether stages that schedules share are paid for once.
        earlier: Files of scores of other studies.
    """
    # Image seeds depend on the seed of a study; the table has one noise per prompt, whatever its number.
    plan = replace(plan, settings=plan.settings.model_copy(update={"out": out}))
    folder = start_study(plan, resume=False)
    specs = dict(zip(plan.directions, plan.objectives, strict=True))
    log = ScoreLog(folder.scores, plan.weights, specs, plan.made_by)
    known = EarlierScores(earlier, plan.weights, specs, plan.made_by)
    executor = TableExecutor(scored, keep_stages)
    evaluations = Evaluations(plan, folder, log, known, lambda: executor)
    loop = Loop(plan, evaluations, TrialRecord(plan, folder), _nothing)
    loop.run(None)
    return list(_steps(plan, loop, folder.scores))


def _nothing() -> None:
    pass


def _steps(plan: Plan, loop: Loop, scores: Path) -> Iterator[Step]:
    """Reads what each trial spent from the file of scores, in the order of the trials."""
    lines = [json.loads(line) for line in scores.read_text().splitlines()]
    taken: dict[str, float] = {}
    for line in lines:
        taken[line["schedule"]] = taken.get(line["schedule"], 0.0) + line["tflops"]
    stopped = {candidate.trial: candidate.stopped_at for candidate in loop.candidates()}
    spent = taken.pop(plan.baseline.content_hash, 0.0)
    for trial in loop.trials:
        spent += taken.pop(trial.schedule.content_hash, 0.0)
        yield Step(spent, trial.schedule if stopped[trial.number] is None else None)


def knows_the_table(seed: int) -> list[Step]:
    """Scores the front of the whole table and nothing else, first what adds most for its cost; a bound."""
    plan = _plan(0)
    prompts = len(plan.prompts.search)
    spent, steps = plan.baseline_price.tflops * prompts, list[Step]()
    for schedule in _whole_front():
        spent += plan.price(schedule).tflops * prompts
        steps.append(Step(spent, schedule))
    return steps


@functools.cache
def _whole_front() -> list[Schedule]:
    plan, scored = _plan(0), _table()
    left = [schedule for schedule in schedules() if plan.budget.allows(plan.price(schedule))]
    beaten = dominators(np.array([_losses(plan, scored, schedule, plan.prompts.search) for schedule in left]))
    left = [schedule for schedule, worse in zip(left, beaten, strict=True) if not worse]
    reference, points, found = _reference(plan, scored), list[list[float]](), list[Schedule]()
    unseen = {schedule: _losses(plan, scored, schedule, plan.prompts.held_out) for schedule in left}
    held = 0.0
    while left:
        gains = [hypervolume([*points, unseen[one]], reference) - held for one in left]
        chosen = int(np.argmax([gain / unseen[one][0] for gain, one in zip(gains, left, strict=True)]))
        held += gains[chosen]
        found.append(left.pop(chosen))
        points.append(unseen[found[-1]])
    return found


def _losses(plan: Plan, scored: Scored, schedule: Schedule, prompts: Sequence[str]) -> list[float]:
    return [plan.price(schedule).tflops, *(-mean for mean in means(scored, schedule, prompts))]


def _reference(plan: Plan, scored: Scored) -> list[float]:
    two_steps = plan.blueprint.plain(2, plan.size)
    return [plan.budget.tflops, *_losses(plan, scored, two_steps, plan.prompts.held_out)[1:]]


def volumes(steps: Sequence[Step], plan: Plan, scored: Scored) -> list[float]:
    """The hypervolume of the front after each step, on the prompts that nobody saw."""
    reference = _reference(plan, scored)
    known: dict[Schedule, list[float]] = {}
    found: list[float] = []
    for step in steps:
        if step.schedule in known or step.schedule is None or not plan.budget.allows(plan.price(step.schedule)):
            found.append(found[-1] if found else 0.0)
            continue
        known[step.schedule] = _losses(plan, scored, step.schedule, plan.prompts.search)
        beaten = dominators(np.array(list(known.values())))
        front = [schedule for schedule, worse in zip(known, beaten, strict=True) if not worse]
        points = [_losses(plan, scored, schedule, plan.prompts.held_out) for schedule in front]
        found.append(hypervolume(points, reference))
    return found


def spent_to_reach(steps: Sequence[Step], found: Sequence[float], target: float) -> float:
    """TFLOPs after which the hypervolume is the target's for the first time; infinite if it never is."""
    return next((step.spent for step, volume in zip(steps, found, strict=True) if volume >= target), np.inf)


def volume_at(steps: Sequence[Step], found: Sequence[float], spent: float) -> float:
    """The hypervolume when so many TFLOPs have been spent."""
    return next((v for step, v in zip(reversed(steps), reversed(found), strict=True) if step.spent <= spent), 0.0)


PEERS: dict[str, Search] = {
    name: functools.partial(peer, name)
    for name in ("Optuna TPE", "Optuna NSGA-II", "random", "Ray Tune OptunaSearch")
}
OURS: dict[str, Search] = {
    "ours": functools.partial(ours, None),
    **{f"ours without {name}": functools.partial(ours, name) for name in MECHANISMS},
    "ours after an earlier study": ours_after_another,
}
BOUNDS: dict[str, Search] = {"who knows the table": knows_the_table}


def _run(job: tuple[str, int]) -> tuple[list[Step], list[float]]:
    name, seed = job
    steps = (PEERS | OURS | BOUNDS)[name](seed)
    return steps, volumes(steps, _plan(0), _table())


Run = tuple[list[Step], list[float]]
"""A search's steps, and the hypervolume after each."""


def measure(seeds: int, processes: int) -> dict[str, Any]:
    """Runs everyone with every seed on the table; returns plain JSON types."""
    jobs = [(name, seed) for name in PEERS | OURS | BOUNDS for seed in range(seeds)]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        runs = dict(zip(jobs, pool.map(_run, jobs), strict=True))
    return {
        "table": _table().about["cpu_seconds"],
        **compare(runs, list(PEERS), [*OURS, *BOUNDS], seeds, OUR_TRIALS),
    }


def compare(
    runs: Mapping[tuple[str, int], Run], peers: Sequence[str], ours: Sequence[str], seeds: int, our_trials: int
) -> dict[str, Any]:
    """Compares searches with the best of the peers, seed by seed; returns plain JSON types.

    Args:
        runs: By name and seed.
        peers: Names of those that set the target.
        ours: Names of the others.
        seeds: How many; there are runs with 0, 1, ...
        our_trials: How many the others had.
    """
    final = {name: [runs[name, seed][1][-1] for seed in range(seeds)] for name in peers}
    best = max(final, key=lambda name: float(np.median(final[name])))
    rows = []
    for name in (*peers, *ours):
        ratios, gains, early = [], [], []
        for seed in range(seeds):
            target, spent = final[best][seed], runs[best, seed][0][-1].spent
            steps, found = runs[name, seed]
            ratios.append(spent_to_reach(steps, found, target) / spent)
            gains.append(volume_at(steps, found, spent))
            early.append(volume_at(steps, found, EARLY * spent))
        gain = paired_score(gains, final[best]) if seeds > 1 else None
        rows.append(
            {
                "search": name,
                "tflops_spent": float(np.median([runs[name, seed][0][-1].spent for seed in range(seeds)])),
                "final_hypervolume": float(np.median([runs[name, seed][1][-1] for seed in range(seeds)])),
                "share_of_best_peers_spend": _median(ratios),
                "shares": [None if np.isinf(ratio) else ratio for ratio in ratios],
                "hypervolume_at_an_eighth": float(np.median(early)),
                "gain_at_equal_spend": gain and gain.delta,
                "gain_ci95": gain and gain.ci95,
            }
        )
    return {"seeds": seeds, "trials": TRIALS, "our_trials": our_trials, "best_peer": best, "rows": rows}


def _median(values: Sequence[float]) -> list[float | None]:
    """The median and the 95 % bootstrap interval of it; None for what was never reached."""
    drawn = np.random.default_rng(0).choice(np.array(values), (2000, len(values)))
    medians = np.sort(np.median(np.where(np.isfinite(drawn), drawn, 1e9), axis=1))
    found = [
        float(np.median(np.where(np.isfinite(values), values, 1e9))),
        *(float(medians[k]) for k in (50, 1949)),
    ]
    return [value if value < 1e6 else None for value in found]


def report(result: dict[str, Any]) -> str:
    """Formats what ``measure`` returned as a table."""
    lines = [
        f"{result['seeds']} seeds, {result['trials']} trials, ours {result['our_trials']}; "
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


def main() -> None:
    """Prints the comparison."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search_efficiency", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    result = measure(options.seeds, options.processes)
    print(json.dumps(result, indent=2) if options.json else report(result))


if __name__ == "__main__":
    main()
