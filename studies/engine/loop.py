"""The search loop: propose a trial, evaluate it, judge it, until all trials are finished."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from statistics import fmean
from typing import TYPE_CHECKING

from objectives.base import loss_sign
from studies.engine.stopping import ended_by, pays_for
from studies.judge.early_stopping import Rival, Scores, estimated, is_beaten
from studies.judge.intervals import paired_score
from studies.judge.pareto import front
from studies.propose.expected_scores import expected_scores
from studies.propose.proposer import promotions, propose, waiting_references
from studies.propose.trial import Outcome, Trial, as_optuna, latest
from studies.records.results import PROPOSED, Candidate
from studies.work.task import Failure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from studies.engine.proposals import Proposals
    from studies.plan.plan import Plan
    from studies.records.optuna_record import TrialRecord
    from studies.records.results import EndedBy
    from studies.workers.dispatcher import Evaluations
    from tuner.presets import Score


class Loop:
    """Runs the trials of one study.

    Trial i starts when the baseline and trials 0 to i - lag are finished, and depends on no other outcomes. Up to
    ``lag`` trials run at the same time, split into chunks over all workers. So the study does not depend on which
    task finishes first. After the last proposal, the loop completes the outcome: it scores on all prompts the
    references and the schedules on the front of expected scores.

    Args:
        plan: The search.
        evaluations: Runs the tasks.
        record: Where finished trials are kept.
        proposals: Where proposals are kept.
        on_change: Called after every finished task.

    Attributes:
        ended_by: The rule that ended the search.
        baseline: Scores of the baseline on the search prompts; empty until it is finished.
        best: The best mean of each objective among trials on all prompts and within the budget.
        tflops_of_trials: Denoiser TFLOPs of the finished trials.
        trials: All trials so far, in the order of their start; outcomes are added in this order, too.
        candidates: Records of the schedules that have scores, once the loop has run.
    """

    def __init__(
        self,
        plan: Plan,
        evaluations: Evaluations,
        record: TrialRecord,
        proposals: Proposals,
        on_change: Callable[[], None],
    ):
        self._plan = plan
        self._evaluations = evaluations
        self._record = record
        self._proposals = proposals
        self._on_change = on_change
        self._closing = False  # later trials complete the outcome and are not recorded
        self._done = 0  # trials that have an outcome
        self._recorded = 0
        self._counted = 0  # trials that ``trials`` of the settings counts
        self._complete: list[tuple[float, Rival]] = []  # cost, and scores on all prompts
        self.tflops_of_trials = 0.0
        self.best: dict[str, float] = {}
        self.baseline: Scores = {}
        self.ended_by: EndedBy = "trials"
        self.trials: list[Trial] = []
        self.candidates: list[Candidate] = []

    @property
    def total(self) -> int:
        """The expected number of trials in the end, references included."""
        return max(len(self._plan.references) + self._plan.settings.trials, len(self.trials))

    @property
    def finished(self) -> Sequence[Trial]:
        """The trials that have an outcome, failed ones included."""
        return self.trials[: self._done]

    @property
    def recorded(self) -> Sequence[Trial]:
        """The finished trials without those that complete the outcome."""
        return self.trials[: self._recorded]

    def run(self, deadline: float | None) -> None:
        """Runs until every trial is finished.

        Args:
            deadline: The ``time.monotonic()`` after which no new trial is proposed; None for no limit. Trials of
                earlier sittings are replayed in any case.

        Raises:
            RuntimeError: If the baseline itself fails.
        """
        self._evaluations.request(self._plan.search_tasks(self._plan.baseline))
        while True:
            self._finish()
            if self._may_propose(deadline):
                visible = self._visible()
                self._start(self._proposals.next(visible, self.trials[len(visible) :], propose))
            elif self._evaluations.working:
                self._evaluations.wait()
                self._on_change()
            elif not self._close():
                break

    def _visible(self) -> list[Trial]:
        """The trials whose outcomes the next trial may depend on."""
        return self.trials[: max(0, len(self.trials) - self._plan.settings.lag + 1)]

    def _may_propose(self, deadline: float | None) -> bool:
        visible = self._visible()
        if self.ended_by != "trials" or self._counted >= self._plan.settings.trials:
            return False
        if visible and visible[-1].outcome is None:
            return False
        replays = len(self.trials) < self._record.earlier
        if deadline is not None and not replays and time.monotonic() >= deadline:
            self.ended_by = "time limit"
        elif rule := ended_by(self._plan, visible, self.trials):
            self.ended_by = rule
        return self.ended_by == "trials"

    def _start(self, trial: Trial) -> None:
        self.trials.append(replace(trial, number=len(self.trials), started=datetime.now()))
        self._counted += trial.label == PROPOSED or trial.continues is not None
        self._evaluations.request(self._plan.tasks_up_to(trial.schedule, trial.rung))

    def _finish(self) -> None:
        """Adds the outcomes of finished trials, in the order of the trials.

        Raises:
            RuntimeError: If the baseline failed.
        """
        if not self.baseline:
            scores = self._evaluations.outcome(self._plan.search_tasks(self._plan.baseline))
            if isinstance(scores, Failure):
                raise RuntimeError(f"the baseline failed, so nothing can be compared with it: {scores.reason}")
            if scores is None:
                return
            self.baseline = scores
        for trial in self.trials[self._done :]:
            scores = self._evaluations.outcome(self._plan.tasks_up_to(trial.schedule, trial.rung))
            if scores is None:
                return
            outcome = scores if isinstance(scores, Failure) else self._judge(trial, scores)
            self._add(replace(trial, outcome=outcome))

    def _add(self, trial: Trial) -> None:
        """Adds the next finished trial."""
        self.trials[trial.number] = trial
        self._done += 1
        self.tflops_of_trials += self._plan.rung_tflops(trial.price, trial.rung)
        if trial.succeeded and self._plan.is_last(trial.rung):
            self._complete.append((trial.cost, Rival.of(trial.result.scores, self._plan.directions)))
            if self._plan.budget.allows(trial.price):
                self._improve(trial.result.scores)
        if not self._closing:
            self._record.add(as_optuna(self._plan, trial))
            self._recorded += 1

    def _improve(self, scores: Scores) -> None:
        better = {"maximize": max, "minimize": min}
        for name, direction in self._plan.directions.items():
            mean = fmean(scores[name])
            self.best[name] = better[direction](self.best.get(name, mean), mean)

    def _judge(self, trial: Trial, scores: Scores) -> Outcome:
        """Estimates means on all prompts, and decides whether an earlier trial stops this one."""
        directions = self._plan.directions
        scores = {name: array("d", values) for name, values in scores.items()}  # thousands of trials keep theirs
        means, errors = zip(*(estimated(scores[name], self.baseline[name]) for name in directions), strict=True)
        losses = tuple(loss_sign(way) * mean for way, mean in zip(directions.values(), means, strict=True))
        if self._plan.is_last(trial.rung):
            return Outcome(scores, losses, errors, promotable=False)
        rivals = [rival for cost, rival in self._complete if cost <= trial.cost]
        beaten = is_beaten(scores, rivals, directions, looks=len(self._plan.rungs) - 1)
        return Outcome(scores, losses, errors, promotable=not beaten)

    def _close(self) -> bool:
        """Starts the trials that complete the outcome: references, and schedules on the front of expected scores.

        References that were never the best proposal run now, because users compare schedules with them. After
        the time limit none of them run, except the cheapest one in a study without trials. These trials are not
        recorded, so that a study with more trials continues as if they had been asked for at once.

        Returns:
            Whether any trial was started.
        """
        self._closing = True
        self.candidates = self._candidates()
        late = self.ended_by == "time limit"
        waiting = waiting_references(self._plan, self.trials)[: int(not self.trials) if late else None]
        expected = {member.schedule for member in front(self.candidates, self._plan.directions)}
        promoted = [
            trial
            for trial in promotions(self._plan, self.trials, self.trials)
            if trial.schedule in expected or (trial.label != PROPOSED and not late)
        ]
        before = len(self.trials)
        for trial in (*waiting, *promoted):
            if pays_for(self._plan, trial, self.trials):
                self._start(trial)
        return len(self.trials) > before

    def _candidates(self) -> list[Candidate]:
        """Makes records of the schedules that have scores, in the order of their last trials."""
        known = {candidate.trial: candidate.scores for candidate in self.candidates}  # intervals take time
        last = latest(trial for trial in self.trials if trial.succeeded)
        return [
            Candidate(
                trial=trial.number,
                label=trial.label,
                tflops=trial.price.tflops,
                speedup=self._plan.baseline_price.tflops / trial.price.tflops,
                nfe=trial.price.nfe,
                seconds=self._plan.seconds(trial.price),
                scores=known.get(trial.number) or paired_scores(trial.result.scores, self.baseline),
                schedule=trial.schedule,
                stopped_at=None if self._plan.is_last(trial.rung) else self._plan.rungs[trial.rung],
                expected=expected,
            )
            for trial, expected in zip(last, expected_scores(self._plan, last), strict=True)
        ]


def paired_scores(scores: Scores, baseline: Scores) -> dict[str, Score]:
    """Compares the scores of every objective with the baseline's on the same prompts."""
    return {name: paired_score(values, baseline[name][: len(values)]) for name, values in scores.items()}
