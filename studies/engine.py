"""``tuner search``, from settings to a finished study."""

from __future__ import annotations

import functools
import time
from statistics import fmean
from typing import TYPE_CHECKING

from studies.evaluation import Evaluator, Failure
from studies.evaluations import Evaluations
from studies.executors import Executor, LocalExecutor
from studies.export import preset_of
from studies.loop import Loop, paired_scores
from studies.pareto import front, pick
from studies.plan import Plan, make_plan
from studies.progress import OnProgress, Phase, Progress
from studies.results import Baseline, Candidate, Mean, Pick, StudyResult
from studies.scores import ScoreLog
from studies.storage import TrialRecord
from studies.store import StudyFolder, start_study
from tuner import presets

if TYPE_CHECKING:
    from studies.settings import SearchSettings


def search(
    settings: SearchSettings,
    *,
    resume: bool = False,
    on_progress: OnProgress | None = None,
    executor: Executor | None = None,
) -> StudyResult:
    """Searches schedules within a budget and exports the best compromise.

    The study is kept in ``OUT/NAME`` as it goes. Whatever stops it, Ctrl-C included, running the same settings
    with ``resume`` continues it: no finished evaluation is run again, and the outcome is the one that an
    uninterrupted search would have had. It is logged to MLflow by ``log_study``, which is another step.

    Args:
        settings: What to search.
        resume: Whether to continue a study of the same name; without one, a new study starts.
        on_progress: Called at every change.
        executor: What runs the evaluations; by default Ray workers as the settings say. It is closed at the end.

    Returns:
        The outcome, which the study's folder keeps, too.

    Raises:
        UserError: If a setting is wrong, or the study cannot be started or resumed with it.
        RuntimeError: If the baseline fails, if no trial within the budget succeeds, or if workers keep dying.
        KeyboardInterrupt: On Ctrl-C, after the workers have stopped; the study is saved.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    plan = make_plan(settings)
    folder = start_study(plan, resume)
    with folder.lock():
        specs = dict(zip(plan.directions, plan.objectives, strict=True))
        scores = ScoreLog(folder.scores, plan.identity["weights"], specs)
        start = (lambda: executor) if executor is not None else functools.partial(_workers, plan)
        evaluations = Evaluations(plan, folder, scores, start)
        sitting = _Sitting(plan, folder, evaluations, on_progress)
        try:
            return sitting.run()
        finally:
            evaluations.close()
            if executor is not None:
                executor.close()  # also where nothing was left to run


class _Sitting:
    """One run of a search, from the first task that is missing to the outcome."""

    def __init__(self, plan: Plan, folder: StudyFolder, evaluations: Evaluations, on_progress: OnProgress | None):
        self._plan = plan
        self._folder = folder
        self._evaluations = evaluations
        self._on_progress = on_progress
        self._loop = Loop(plan, evaluations, TrialRecord(plan, folder), self._changed)

    def run(self) -> StudyResult:
        plan = self._plan
        self._report("starting")
        limit = plan.settings.time_limit
        self._loop.run(None if limit is None else time.monotonic() + limit)
        candidates = self._loop.candidates()
        within = [candidate for candidate in candidates if self._affordable(candidate)]
        if not within:
            raise RuntimeError(
                f"none of the {len(self._loop.trials)} trials within the budget succeeded; "
                f"{self._folder.scores} says why."
            )
        chosen = self._check_on_held_out(pick(within, plan.settings.pick, plan.directions))
        result = StudyResult(
            study=self._folder.name,
            model=plan.settings.model,
            trials=len(candidates),
            elapsed_s=self._evaluations.elapsed_s,
            tflops_spent=self._evaluations.tflops_spent,
            baseline=self._baseline(),
            front=front(within, plan.directions),
            references=[candidate for candidate in candidates if not self._affordable(candidate)],
            evaluated=candidates,
            pick=chosen,
            preset=str(self._folder.preset),
        )
        presets.save(preset_of(chosen, self._folder, result), self._folder.preset)
        shown = [plan.baseline, *(candidate.schedule for candidate in (*result.front, *result.references, chosen))]
        self._folder.keep_images_of({schedule.content_hash for schedule in shown})
        self._folder.write_result(result)
        return result

    def _check_on_held_out(self, chosen: Candidate) -> Pick:
        tasks = [self._plan.held_out_tasks(schedule) for schedule in (self._plan.baseline, chosen.schedule)]
        for some in tasks:
            self._evaluations.request(some)
        while self._evaluations.working:
            self._report("held-out")
            self._evaluations.wait()
        baseline, scores = (self._evaluations.outcome(some) for some in tasks)
        return Pick(**dict(chosen), held_out=paired_scores(_succeeded(scores), _succeeded(baseline)))

    def _baseline(self) -> Baseline:
        scores = _succeeded(self._evaluations.outcome(self._plan.search_tasks(self._plan.baseline)))
        price = self._plan.baseline_price
        means = {name: Mean(mean=fmean(values)) for name, values in scores.items()}
        return Baseline(tflops=price.tflops, nfe=price.nfe, seconds=self._plan.seconds(price), scores=means)

    def _affordable(self, candidate: Candidate) -> bool:
        return self._plan.budget.allows(self._plan.price(candidate.schedule))

    def _changed(self) -> None:
        baseline = self._evaluations.outcome(self._plan.search_tasks(self._plan.baseline))
        self._report("baseline" if baseline is None else "trials")

    def _report(self, phase: Phase) -> None:
        if self._on_progress is None:
            return
        self._on_progress(
            Progress(
                phase=phase,
                trials_done=len(self._loop.finished),
                trials_total=self._loop.total,
                best=self._loop.best(),
                tflops_spent=self._evaluations.tflops_spent,
                elapsed_s=self._evaluations.elapsed_s,
                left_s=self._left(),
            )
        )

    def _left(self) -> float | None:
        rate = self._evaluations.tflops_per_second
        if rate is None:
            return None
        plan = self._plan
        trials = self._loop.total - len(self._loop.finished)
        unseen = [task for task in plan.held_out_tasks(plan.baseline) if not self._evaluations.has(task)]
        images = trials * len(plan.prompts.search) + sum(len(task.prompts) for task in unseen)
        dear = plan.baseline_price.tflops * sum(len(task.prompts) for task in unseen)
        return (images * plan.budget.tflops + dear) / rate


def _succeeded(outcome: dict[str, list[float]] | Failure | None) -> dict[str, list[float]]:
    if isinstance(outcome, dict):
        return outcome
    raise RuntimeError(f"an evaluation that the outcome needs has failed: {outcome and outcome.reason}")


def _workers(plan: Plan) -> Executor:
    """Starts what the settings ask for."""
    settings = plan.settings
    device = "cpu" if settings.gpus_per_worker == 0 else None
    load = functools.partial(Evaluator.load, settings.model, plan.objectives, device)
    if settings.workers == 0:
        return LocalExecutor(load)
    from studies.ray_executor import RayExecutor

    return RayExecutor(load, settings.workers, settings.gpus_per_worker, settings.ray_address)
