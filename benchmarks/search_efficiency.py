"""What a search costs beside the loops that people write: ``python -m benchmarks.search_efficiency --json``.

Everyone has the same space, prompts, noise, budget and scores, those of ``benchmarks.table``. The peers are
Optuna's TPE and NSGA-II (told which schedules are beyond the budget), random search, and Ray Tune's OptunaSearch,
asked and told without Tune's own runner, which takes seconds per trial. NSGA-II is asked for all parameters of all
numbers of stages: it models only those that every trial has, and of a single one (the number of stages) it mutates
every value, which makes it random search. They score each proposal on all prompts,
whatever it costs. Ours is the loop of ``tuner search``.

Spent are the denoiser TFLOPs of everything, the baseline and stopped candidates included; a schedule that comes
again costs a peer nothing, as if it kept its scores. Peers have 200 trials; ours cost less, so it has more, and
what it has found is read where it has spent as much as a peer. The hypervolume is that of the front that a search
would report: of a peer's measured scores, or of what ours expects (``studies.propose.expected_scores``). It is
taken of scores on prompts that nobody saw; its reference point is the budget and plain sampling with two steps.
The last row is no search: it knows the table's scores on the search prompts.
"""

from __future__ import annotations

import functools
import itertools
import json
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import optuna

from benchmarks.search_measure import (
    Run,
    Step,
    arguments,
    compare,
    front_of,
    losses,
    means,
    reference_of,
    report,
    steps_of,
    volumes,
)
from benchmarks.table import (
    HELD_OUT_PROMPTS,
    OBJECTIVES,
    Scored,
    Table,
    TableExecutor,
    TableSpace,
    raw,
    schedule_of,
    schedules,
    table_plan,
)
from studies.engine.loop import Loop
from studies.engine.proposals import Proposals
from studies.judge.pareto import hypervolume
from studies.plan.plan import Plan
from studies.propose import features
from studies.propose.expected_scores import expected_scores
from studies.propose.gaussian_data import BANDS
from studies.propose.trial import Trial, latest
from studies.records.optuna_record import TrialRecord
from studies.records.score_log import EarlierScores, ScoreLog
from studies.records.study_folder import StudyFolder, start_study
from studies.work.task import Task
from studies.workers.dispatcher import Evaluations
from tuner.schedule import Schedule

FIRST_SEED = 1000  # nothing was ever chosen by how a search with it or a later one does
TRIALS = 200
OUR_TRIALS = 400  # which cost about as much as those of a peer
MECHANISMS = (
    "budget by construction",
    "warm start",
    "rungs",
    "kept stages",
    "kept first calls",
    "Gaussian data",
    "expected scores",
)
_EVERY_FRONT = 64  # trials after each of which ours says what it would report
_FRONT_EVERY = 8  # of later ones: the time of a prediction grows with what it is made from
EARLIER_BUDGET = "6x"  # of the study whose scores the row with earlier scores starts from


Search = Callable[[int], list[Step]]


@functools.cache
def _table() -> Table:
    return Table()


@functools.cache
def _plan(seed: int, **changes: Any) -> Plan:
    return table_plan(seed=seed, trials=OUR_TRIALS, reuse=False, **changes)


def peer(kind: str, seed: int) -> list[Step]:
    """Runs a loop as a person would write it."""
    return steps_of(tried_by(kind, seed), _plan(0), _table())


def tried_by(kind: str, seed: int) -> list[tuple[float, Schedule]]:
    """Runs a peer; returns what it had spent after each trial, and the trial's schedule."""
    silence_optuna()
    plan = _plan(0)
    prompts = plan.prompts.search
    spent, known, tried = plan.baseline_price.tflops * len(prompts), set(), []
    for schedule, tell in (_ray_search if kind == "Ray Tune OptunaSearch" else _optuna_loop)(kind, seed):
        price = plan.price(schedule)
        spent += 0.0 if schedule in known else price.tflops * len(prompts)
        known.add(schedule)
        tell([*means(_table(), schedule, prompts), price.tflops], plan.budget.allows(price))
        tried.append((spent, schedule))
    return tried


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
    blind = _without_gaussian_data() if without == "Gaussian data" else nullcontext()
    with tempfile.TemporaryDirectory() as out, blind:
        return _ours(without, seed, out, ())


@contextmanager
def _without_gaussian_data() -> Iterator[None]:
    """Lets all schedules look alike to Gaussian data, and forgets what was found otherwise."""
    features.features.cache_clear()
    try:
        with mock.patch.object(features, "distances", return_value=np.zeros(len(BANDS))):
            yield
    finally:
        features.features.cache_clear()


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
    executor = TableExecutor(
        _table(), keep_stages=without != "kept stages", keep_calls=without != "kept first calls"
    )
    return run_loop(plan, executor, out, by_expected=without != "expected scores", earlier=earlier)


def run_loop(
    plan: Plan, executor: TableExecutor, out: str, by_expected: bool = True, earlier: Iterable[Path] = ()
) -> list[Step]:
    """Runs the loop of ``tuner search`` on scores that are looked up.

    Args:
        plan: The search.
        executor: Looks them up.
        out: Folder of the study.
        by_expected: Whether its front is that of expected scores; else of measured ones.
        earlier: Files of scores of other studies.
    """
    loop, scores = looped(plan, executor, out, earlier)
    return _steps(plan, loop, scores, executor.table, by_expected)


def looped(plan: Plan, executor: TableExecutor, out: str, earlier: Iterable[Path] = ()) -> tuple[Loop, Path]:
    """Runs the loop, and returns it with the file of its scores; takes what `run_loop` takes."""
    # Image seeds depend on the seed of a study; the table has one noise per prompt, whatever its number.
    plan = replace(plan, settings=plan.settings.model_copy(update={"out": out}))
    folder = StudyFolder(Path(plan.settings.out) / plan.settings.name)
    folder.check_writable("--out")
    start_study(folder, plan, resume=False)
    specs = dict(zip(plan.directions, plan.objectives, strict=True))
    log = ScoreLog(folder.scores, plan.weights, specs, plan.made_by)
    known = EarlierScores(earlier, plan.weights, specs, plan.made_by, "")
    evaluations = Evaluations(plan, folder, log, known, lambda: executor)
    loop = Loop(plan, evaluations, TrialRecord(plan, folder, None), Proposals(plan, folder), _nothing)
    loop.run(None)
    return loop, folder.scores


def _nothing() -> None:
    pass


def _steps(plan: Plan, loop: Loop, scores: Path, scored: Scored, by_expected: bool) -> list[Step]:
    """Tells where a search stood after each of its trials, in their order."""
    spent = _spent(plan, loop, scores)
    if not by_expected:
        full = [trial.schedule if plan.is_last(trial.rung) else None for trial in loop.trials]
        return steps_of(zip(spent, full, strict=True), plan, scored)
    front: list[Schedule] = []
    steps = []
    for done, so_far in enumerate(spent, start=1):
        if done <= _EVERY_FRONT or done % _FRONT_EVERY == 0 or done == len(spent):
            front = expected_front(plan, latest(loop.trials[:done]))
        steps.append(Step(so_far, front))
    return steps


def _spent(plan: Plan, loop: Loop, scores: Path) -> list[float]:
    """Reads from the file of scores what had been spent after each trial."""
    taken = {
        (line["schedule"], line["seeds"][0]): line["tflops"]
        for line in map(json.loads, scores.read_text().splitlines())
    }

    def of(tasks: Iterable[Task]) -> float:
        return sum(taken.pop((task.drawing, task.seeds[0]), 0.0) for task in tasks)

    baseline = of(plan.search_tasks(plan.baseline))
    of_trials = (of(plan.rung_tasks(trial.schedule, trial.rung)) for trial in loop.trials)
    return list(itertools.accumulate(of_trials, initial=baseline))[1:]


def expected_front(plan: Plan, trials: Sequence[Trial]) -> list[Schedule]:
    """The front that a search would report if it ended after some trials.

    Args:
        plan: The search.
        trials: The last ones of each schedule.
    """
    means = expected_scores(plan, trials)
    known = {
        trial.schedule: [plan.price(trial.schedule).tflops, *(-expected[name] for name in OBJECTIVES)]
        for trial, expected in zip(trials, means, strict=True)
        if plan.is_last(trial.rung) and plan.budget.allows(plan.price(trial.schedule))
    }
    return front_of(known) if known else []


def knows_the_table(seed: int) -> list[Step]:
    """Scores the front of the whole table and nothing else, first what adds most for its cost."""
    plan = _plan(0)
    prompts = len(plan.prompts.search)
    spent, tried = plan.baseline_price.tflops * prompts, []
    for schedule in _whole_front():
        spent += plan.price(schedule).tflops * prompts
        tried.append((spent, schedule))
    return steps_of(tried, plan, _table())


@functools.cache
def _whole_front() -> list[Schedule]:
    plan, scored = _plan(0), _table()
    left = [schedule for schedule in schedules() if plan.budget.allows(plan.price(schedule))]
    left = front_of({schedule: losses(plan, scored, schedule, plan.prompts.search) for schedule in left})
    reference, points, found = reference_of(plan, scored), list[list[float]](), list[Schedule]()
    unseen = {schedule: losses(plan, scored, schedule, plan.prompts.held_out) for schedule in left}
    held = 0.0
    while left:
        gains = [hypervolume([*points, unseen[one]], reference) - held for one in left]
        chosen = int(np.argmax([gain / unseen[one][0] for gain, one in zip(gains, left, strict=True)]))
        held += gains[chosen]
        found.append(left.pop(chosen))
        points.append(unseen[found[-1]])
    return found


PEERS: dict[str, Search] = {
    name: functools.partial(peer, name)
    for name in ("Optuna TPE", "Optuna NSGA-II", "random", "Ray Tune OptunaSearch")
}
OURS: dict[str, Search] = {
    "ours": functools.partial(ours, None),
    **{f"ours without {name}": functools.partial(ours, name) for name in MECHANISMS},
    "ours after an earlier study": ours_after_another,
}
INFORMED: dict[str, Search] = {"who knows the table": knows_the_table}


def _run(job: tuple[str, int, int]) -> Run:
    name, seed, unseen = job
    steps = (PEERS | OURS | INFORMED)[name](seed)
    plan = _plan(0)
    prompts = replace(plan.prompts, held_out=plan.prompts.held_out[:unseen])
    return steps, volumes(steps, replace(plan, prompts=prompts), _table())


def measure(seeds: Sequence[int], processes: int, unseen: int) -> dict[str, Any]:
    """Runs everyone with every seed on the table; returns plain JSON types.

    Args:
        seeds: Of the searches.
        processes: How many at a time.
        unseen: How many of the prompts that nobody saw the fronts are scored on.
    """
    jobs = [(name, seed) for name in PEERS | OURS | INFORMED for seed in seeds]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        runs = dict(zip(jobs, pool.map(_run, [(*job, unseen) for job in jobs]), strict=True))
    return {
        "table": _table().about["cpu_seconds"],
        "trials": TRIALS,
        "our_trials": OUR_TRIALS,
        "unseen_prompts": unseen,
        **compare(runs, list(PEERS), [*OURS, *INFORMED], seeds),
    }


def main() -> None:
    """Prints the comparison."""
    parser = arguments("search_efficiency", __doc__, 20, FIRST_SEED)
    parser.add_argument("--unseen", type=int, default=HELD_OUT_PROMPTS, help="prompts that fronts are scored on")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    result = measure(seeds, options.processes, options.unseen)
    print(json.dumps(result, indent=2) if options.json else report(result))


if __name__ == "__main__":
    main()
