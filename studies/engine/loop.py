"""The search itself: ask, evaluate, tell, until all trials are finished."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import fmean
from typing import TYPE_CHECKING

from studies.engine.stopping import StopRules
from studies.judge.early_stopping import Estimate, Scores, estimated, is_beaten
from studies.judge.intervals import paired_score
from studies.judge.pareto import front
from studies.propose.expected_scores import expected_scores
from studies.propose.proposer import Proposal, Proposer
from studies.propose.trial import Trial, latest
from studies.records.results import PROPOSED, Candidate
from studies.work.task import Failure
from tuner.schedule import Schedule

if TYPE_CHECKING:
    import optuna

    from studies.plan.plan import Plan
    from studies.records.optuna_record import TrialRecord
    from studies.records.results import EndedBy
    from studies.workers.dispatcher import Evaluations
    from tuner.presets import Score


class Loop:
    """Runs the references and the proposals of one study.

    Trial i is chosen, a reference or a proposal, when the baseline and trials 0 to i - lag are finished and told,
    in order; up to ``lag`` trials run at the same time, split into chunks over all workers. So nothing depends on
    what finished first. After all others run those that the outcome lacks: on all prompts, the references, and
    what is expected on the front.

    Args:
        plan: The search.
        evaluations: What runs the tasks.
        record: Where finished trials are kept.
        on_change: Called whenever a task has come back.

    Attributes:
        ended_by: What ended the search.
        trials: All trials so far, in the order of their start.
        candidates: Records of the schedules that have scores, once it has run.
    """

    def __init__(self, plan: Plan, evaluations: Evaluations, record: TrialRecord, on_change: Callable[[], None]):
        self._plan = plan
        self._evaluations = evaluations
        self._record = record
        self._on_change = on_change
        self._proposer = Proposer(plan)
        self._told = 0
        self._closing = False  # what follows is no part of the Optuna study
        self._compared: dict[int, dict[str, Score]] = {}  # by number; intervals take time
        self._outcomes: dict[int, Scores | Failure] = {}  # by number; on the prompts up to the trial's rung
        self._baseline_scores: Scores | None = None
        self._rules = StopRules(plan)
        self.ended_by: EndedBy = "trials"
        self.trials: list[Trial] = []
        self.candidates: list[Candidate] = []

    @property
    def total(self) -> int:
        """Trials when all are done, as far as it is known: references included, and what the outcome lacks."""
        return max(len(self._plan.references) + self._plan.settings.trials, len(self.trials))

    @property
    def finished(self) -> list[Trial]:
        """The trials that have an outcome, failed ones included."""
        return [trial for trial in self.trials if trial.number in self._outcomes]

    @property
    def tflops_of_trials(self) -> float:
        """What the finished trials took, as far as they went."""
        return sum(self._plan.rung_tflops(trial.price, trial.rung) for trial in self.finished)

    def best(self) -> dict[str, float]:
        """The best mean of each objective among trials within the budget that were scored on all prompts."""
        means = [
            {name: fmean(values) for name, values in scores.items()}
            for trial in self.trials
            if (scores := self._full_scores(trial)) is not None and self._plan.budget.allows(trial.price)
        ]
        better = {"maximize": max, "minimize": min}
        return {
            name: better[direction](mean[name] for mean in means)
            for name, direction in self._plan.directions.items()
            if means
        }

    def run(self, deadline: float | None) -> None:
        """Runs until every trial is finished.

        Args:
            deadline: Nothing is proposed after this ``time.monotonic()``; None for no limit.

        Raises:
            RuntimeError: If the baseline itself fails.
        """
        self._evaluations.request(self._plan.search_tasks(self._plan.baseline))
        while True:
            self._baseline()  # nothing is worth waiting for if it failed
            self._collect()
            if self._may_propose(deadline):
                self._start(self._propose())
            elif self._evaluations.working:
                self._evaluations.wait()
                self._on_change()
            elif not self._close():
                break

    def _candidates(self) -> list[Candidate]:
        """Makes records of the schedules that have scores, in the order of their last trials."""
        baseline = self._baseline()
        if baseline is None:
            return []
        succeeded = {n: scores for n, scores in self._outcomes.items() if not isinstance(scores, Failure)}
        last = latest(self.trials[number] for number in sorted(succeeded))
        estimates = [_estimates(succeeded[trial.number], baseline) for trial in last]
        expected = expected_scores(self._plan, last, estimates)
        for trial in last:
            if trial.number not in self._compared:
                self._compared[trial.number] = paired_scores(succeeded[trial.number], baseline)
        return [self._candidate(trial, means) for trial, means in zip(last, expected, strict=True)]

    def estimate(self, trial: Trial) -> dict[str, Estimate] | None:
        """Estimates a finished trial's means on all prompts; None if it failed."""
        scores, baseline = self._outcomes[trial.number], self._baseline()
        return None if isinstance(scores, Failure) or baseline is None else _estimates(scores, baseline)

    def _candidate(self, trial: Trial, expected: dict[str, float]) -> Candidate:
        return Candidate(
            trial=trial.number,
            label=trial.label,
            tflops=trial.price.tflops,
            speedup=self._plan.baseline_price.tflops / trial.price.tflops,
            nfe=trial.price.nfe,
            seconds=self._plan.seconds(trial.price),
            scores=self._compared[trial.number],
            schedule=trial.schedule,
            stopped_at=None if self._plan.is_last(trial.rung) else self._plan.rungs[trial.rung],
            expected=expected,
        )

    def _collect(self) -> None:
        """Takes down the outcomes of trials that finished."""
        for trial in self.trials[self._told :]:
            if trial.number not in self._outcomes:
                scores = self._evaluations.outcome(self._plan.tasks_up_to(trial.schedule, trial.rung))
                if scores is not None:
                    self._outcomes[trial.number] = scores

    def _rests(self, trial: Trial) -> bool:
        """Whether a finished trial may go on: prompts are left, and nothing that was told of before beats it."""
        scores = self._outcomes[trial.number]
        if isinstance(scores, Failure) or self._plan.is_last(trial.rung):
            return False
        cost = self._plan.budget.cost
        rivals = [
            finished
            for earlier in self.trials[: trial.number]
            if cost(earlier.price) <= cost(trial.price) and (finished := self._full_scores(earlier)) is not None
        ]
        return not is_beaten(scores, rivals, self._plan.directions, looks=len(self._plan.rungs) - 1)

    def _visible(self, number: int) -> list[Trial]:
        """The trials whose outcomes trial ``number`` may depend on."""
        return self.trials[: max(0, number - self._plan.settings.lag + 1)]

    def _may_propose(self, deadline: float | None) -> bool:
        number = len(self.trials)
        visible = self._visible(number)
        if self._is_over():
            return False
        if visible and self._baseline() is None:  # the first trials are proposed without any results
            return False
        if not all(trial.number in self._outcomes for trial in visible):
            return False
        if deadline is not None and time.monotonic() >= deadline:
            self.ended_by = "time limit"
        elif rule := self._rules.ended_by(visible, self._outcomes, self.trials):
            self.ended_by = rule
        return self.ended_by == "trials"

    def _is_over(self) -> bool:
        """Whether nothing more is proposed: a rule says so, or only references that wait are left."""
        chosen = len(self._plan.references) - len(self._proposer.waiting) + self._plan.settings.trials
        return self.ended_by != "trials" or len(self.trials) >= chosen

    def _close(self) -> bool:
        """Starts trials that the outcome lacks: references, and what is expected on the front, on the next rung.

        References that still wait promise little, but are what users compare with. After the time limit there are
        none of them, but for the cheapest if there is no trial at all, as a study has a result. None of this is
        recorded, so more proposals extend the study as if asked for at once.

        Returns:
            Whether there was any.
        """
        while self._told < len(self.trials):
            self._tell()
        self._closing = True
        self.candidates = self._candidates()
        late = self.ended_by == "time limit"
        waiting = self._proposer.waiting[: int(not self.trials) if late else None]
        expected = {member.schedule for member in front(self.candidates, self._plan.directions)}
        lacking = [
            one
            for one in self._proposer.resting
            if one.schedule in expected or (one.label != PROPOSED and not late)
        ]
        before = len(self.trials)
        for one in (*waiting, *lacking):
            if self._rules.pay_for(one, self.trials):
                self._start(self._proposer.start(one))
        return len(self.trials) > before

    def _propose(self) -> Proposal:
        number = len(self.trials)
        while self._told < len(self._visible(number)):
            self._tell()
        if number < len(self._record.trials):
            return self._repeat(self._record.trials[number])
        return self._proposer.propose()

    def _repeat(self, known: optuna.trial.FrozenTrial) -> Proposal:
        """Makes a trial of an earlier sitting the next one."""
        came_from = known.user_attrs["label"], known.user_attrs.get("continues")
        for one in (*self._proposer.waiting, *self._proposer.resting):
            if (one.label, one.continues) == came_from:
                return self._proposer.start(one)
        schedule = Schedule.model_validate(known.user_attrs["schedule"])
        return self._proposer.start(Proposal(PROPOSED, schedule, known.params))

    def _start(self, proposal: Proposal) -> None:
        price = self._plan.price(proposal.schedule)
        self.trials.append(Trial(len(self.trials), proposal.label, proposal.schedule, price, proposal.rung))
        self._evaluations.request(self._plan.tasks_up_to(proposal.schedule, proposal.rung))

    def _tell(self) -> None:
        trial = self.trials[self._told]
        told = self._proposer.tell(self.estimate(trial), self._rests(trial))
        if not self._closing:
            self._record.add(told)
        self._told += 1

    def _full_scores(self, trial: Trial) -> Scores | None:
        scores = self._outcomes.get(trial.number) if self._plan.is_last(trial.rung) else None
        return None if isinstance(scores, Failure) else scores

    def _baseline(self) -> Scores | None:
        """The baseline's scores; None before they are all there.

        Raises:
            RuntimeError: If the baseline failed.
        """
        if self._baseline_scores is None:
            scores = self._evaluations.outcome(self._plan.search_tasks(self._plan.baseline))
            if isinstance(scores, Failure):
                raise RuntimeError(f"the baseline failed, so nothing can be compared with it: {scores.reason}")
            self._baseline_scores = scores
        return self._baseline_scores


def _estimates(scores: Scores, baseline: Scores) -> dict[str, Estimate]:
    """Means on all prompts, or what to expect of them from those so far, and how far to trust them."""
    return {name: estimated(values, baseline[name]) for name, values in scores.items()}


def paired_scores(scores: Scores, baseline: Scores) -> dict[str, Score]:
    """Compares every objective's scores with the baseline's on the same prompts, the first of the baseline's."""
    return {name: paired_score(values, baseline[name][: len(values)]) for name, values in scores.items()}
