"""``tuner search``, from settings to a finished study."""

from __future__ import annotations

import functools
import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from studies.engine.check import UnseenPrompts
from studies.engine.drift import drift
from studies.engine.leaders import Leaders
from studies.engine.loop import Loop
from studies.engine.progress import OnProgress, Phase, Progress
from studies.engine.proposals import Proposals
from studies.judge.pareto import front
from studies.judge.within import choose
from studies.plan.plan import Plan, make_plan
from studies.records.export import preset_of
from studies.records.lessons import keep_learnt, learnt
from studies.records.optuna_record import TrialRecord, open_storage
from studies.records.results import PROPOSED, Baseline, Candidate, Checked, Mean, Pick, Reused, Rival, StudyResult
from studies.records.score_log import EarlierScores, ScoreLog
from studies.records.study_folder import StudyFolder, as_begun, start_study
from studies.workers.dispatcher import Evaluations
from studies.workers.executors import device_type
from studies.workers.latency import latencies
from studies.workers.start import start_workers
from tuner import presets
from tuner.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from studies.plan.settings import SearchSettings
    from studies.work.task import Task
    from studies.workers.executors import Executor
    from tuner.schedule import Schedule


def search(
    settings: SearchSettings,
    *,
    resume: bool = False,
    on_progress: OnProgress | None = None,
    executor: Executor | None = None,
) -> StudyResult:
    """Searches schedules within a budget and exports the best compromise.

    The search writes the study to ``OUT/NAME`` as it runs. After any interruption, Ctrl-C included, the same
    settings with ``resume`` continue it: no finished evaluation runs again, and the outcome is that of an
    uninterrupted search. ``log_study`` logs the study to MLflow.

    Args:
        settings: The settings of the search.
        resume: Whether to continue a study of the same name; if there is none, a new study starts.
        on_progress: Called at every change.
        executor: Runs the evaluations; by default Ray workers as the settings say. It is closed at the end.

    Returns:
        The outcome, which is also written to the study's folder.

    Raises:
        UserError: If a setting is wrong, or the study cannot be started or resumed with it.
        RuntimeError: If the baseline fails, if no trial succeeds, or if workers keep dying.
        KeyboardInterrupt: On Ctrl-C, after the workers have stopped; the study is saved.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    plan = make_plan(as_begun(settings) if resume else settings, latencies)
    settings = plan.settings
    storage = open_storage(settings.storage)
    folder = StudyFolder(Path(settings.out) / settings.name)
    folder.check_writable("--out")
    with folder.lock():  # before anything is written, because another search may start the same study
        plan = replace(plan, learnt=learnt(settings, plan, folder))
        device = device_type(settings.gpus_per_worker)
        start_study(folder, plan, resume, device)
        keep_learnt(folder, plan)
        record = TrialRecord(plan, folder, storage)
        _check_trials(record, settings)
        specs = dict(zip(plan.directions, plan.objectives, strict=True))
        scores = ScoreLog(folder.scores, plan.weights, specs, plan.made_by)
        others = (path for path in folder.path.parent.glob("*/scores.jsonl") if path != folder.scores)
        runtime = settings.options.runtime(device)
        earlier = EarlierScores(others if settings.reuse else (), plan.weights, specs, plan.made_by, runtime)
        start = (
            (lambda: executor)
            if executor is not None
            else functools.partial(start_workers, settings, plan.objectives, texts=plan.texts)
        )
        evaluations = Evaluations(plan, folder, scores, earlier, start)
        sitting = _Sitting(plan, folder, evaluations, record, on_progress)
        try:
            return sitting.run()
        finally:
            evaluations.close()
            if executor is not None:
                executor.close()  # even if no task ran


class _Sitting:
    """One sitting of a search, from the first missing task to the outcome."""

    def __init__(
        self,
        plan: Plan,
        folder: StudyFolder,
        evaluations: Evaluations,
        record: TrialRecord,
        on_progress: OnProgress | None,
    ):
        self._plan = plan
        self._folder = folder
        self._evaluations = evaluations
        self._on_progress = on_progress
        self._loop = Loop(plan, evaluations, record, Proposals(plan, folder), self._changed)
        self._leaders = Leaders(plan)

    def run(self) -> StudyResult:
        plan = self._plan
        self._report("starting")
        limit = plan.settings.time_limit
        self._loop.run(None if limit is None else time.monotonic() + limit)
        candidates = self._loop.candidates
        finished = [candidate for candidate in candidates if candidate.stopped_at is None]
        if not finished:
            raise RuntimeError(
                f"none of the {len(self._loop.trials)} trials succeeded; {self._folder.scores} says why."
            )
        chosen, rivals, checks, note = self._check(finished)
        members = front(finished, plan.directions)
        references = [other for other in finished if other.label != PROPOSED and other not in members]
        self._keep_images([plan.baseline, *(candidate.schedule for candidate in (*members, *references, chosen))])
        exported = plan.target.beside(self._folder.preset) if plan.target else None
        trials = self._loop.trials
        result = StudyResult(
            study=self._folder.name,
            model=plan.settings.model,
            trials=len(self._loop.finished),
            elapsed_s=self._evaluations.elapsed_s,
            tflops_spent=self._evaluations.tflops_spent,
            baseline=self._baseline(),
            front=members,
            references=references,
            evaluated=candidates,
            pick=chosen,
            preset=str(self._folder.preset),
            exported=str(exported) if exported else None,
            reused=Reused(**self._evaluations.tflops_reused),
            ended_by=self._loop.ended_by,
            rivals=rivals,
            checks=checks,
            pick_note=note,
            directions=dict(plan.directions),
            fidelity=plan.fidelity,
            search_prompts=len(plan.prompts.search),
            held_out_prompts=len(plan.prompts.held_out),
            drift=drift(plan, self._folder.scores, [plan.baseline, *(trial.schedule for trial in trials)]),
        )
        preset = preset_of(chosen, self._folder, result)
        presets.save(preset, self._folder.preset)
        if plan.target and exported:
            plan.target.save(preset, exported)
        self._folder.write_result(result)
        return result

    def _keep_images(self, shown: Sequence[Schedule]) -> None:
        """Keeps the images of the shown schedules alone, and draws those that reused scores left out."""
        hashes = {schedule.content_hash: schedule for schedule in shown}
        for content_hash, schedule in hashes.items():
            if not self._folder.images(content_hash):
                tasks = self._plan.search_tasks(schedule)
                self._evaluations.draw_again(
                    [task for task in tasks if task.keep_images and self._evaluations.has(task)]
                )
        while self._evaluations.working:
            self._report("held-out")
            self._evaluations.wait()
        self._folder.keep_images_of(set(hashes))

    def _check(self, finished: Sequence[Candidate]) -> tuple[Pick, list[Rival], list[Checked], str | None]:
        """Picks a schedule, and measures it on unseen prompts."""
        chosen, note = self._choose(finished)
        presets = [one for one in finished if one.family == "preset"]
        unseen = UnseenPrompts(self._plan, self._evaluations, self._draw)
        picked, rivals = unseen.measure(chosen, self._choose(presets)[0] if presets else None)
        return picked, rivals, unseen.decide(chosen, rivals), note

    def _choose(self, candidates: Sequence[Candidate]) -> tuple[Candidate, str | None]:
        trials, plan = self._loop.trials, self._plan
        return choose(
            candidates,
            plan.settings.pick,
            plan.directions,
            lambda candidate: trials[candidate.trial].result.scores,
            self._loop.baseline,
        )

    def _draw(self, tasks: Sequence[Task]) -> None:
        self._evaluations.request(tasks)
        while self._evaluations.working:
            self._report("held-out")
            self._evaluations.wait()

    def _baseline(self) -> Baseline:
        price = self._plan.baseline_price
        means = {name: Mean(mean=fmean(values)) for name, values in self._loop.baseline.items()}
        return Baseline(tflops=price.tflops, nfe=price.nfe, seconds=self._plan.seconds(price), scores=means)

    def _changed(self) -> None:
        baseline = self._evaluations.outcome(self._plan.search_tasks(self._plan.baseline))
        self._report("baseline" if baseline is None else "trials")

    def _report(self, phase: Phase) -> None:
        if self._on_progress is None:
            return
        loop, left = self._loop, self._tflops_left()
        rate = self._evaluations.tflops_per_second
        self._leaders.follow(loop.finished, loop.baseline)
        self._on_progress(
            Progress(
                phase=phase,
                trials_done=len(loop.finished),
                trials_total=loop.total,
                best=dict(loop.best),
                tflops_spent=self._evaluations.tflops_spent,
                tflops_total=None if left is None else self._evaluations.tflops_spent + left,
                elapsed_s=self._evaluations.elapsed_s,
                left_s=None if left is None or rate is None else left / rate,
                running=len(loop.trials) - len(loop.finished),
                stopped_early=self._leaders.stopped_early,
                leaders=tuple(self._leaders.found),
                recorded=loop.recorded,
            )
        )

    def _tflops_left(self) -> float | None:
        """Estimates what is still to spend: trials like those so far, and the check on unseen prompts."""
        plan = self._plan
        finished = len(self._loop.finished)
        if not finished:
            return None
        tasks = plan.held_out_tasks(plan.baseline)
        left = sum(len(task.prompts) for task in tasks if not self._evaluations.has(task))
        held_out = plan.check_tflops * left / (len(plan.prompts.held_out) + len(plan.prompts.further))
        trials = (self._loop.total - finished) * self._loop.tflops_of_trials / finished
        return trials + held_out


def _check_trials(record: TrialRecord, settings: SearchSettings) -> None:
    """Refuses to resume a study with fewer trials than it has, which would lose members of its front."""
    if record.proposed > settings.trials:
        raise UserError(
            f"Study {settings.name!r} has {record.proposed} trials, but --trials is {settings.trials}; ask for at "
            f"least {record.proposed}, or start another study with --study."
        )
