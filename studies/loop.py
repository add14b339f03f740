"""The search itself: ask, evaluate rung by rung, tell, until all trials are finished."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from studies.evaluation import Failure
from studies.expected import expected_scores
from studies.proposals import Proposer
from studies.results import Candidate
from studies.rungs import Estimate, Scores, estimated, is_beaten
from studies.statistics import paired_score
from studies.stopping import StopRules
from tuner.schedule import Schedule

if TYPE_CHECKING:
    import optuna

    from studies.evaluations import Evaluations
    from studies.plan import Plan
    from studies.results import EndedBy
    from studies.storage import TrialRecord
    from tuner.flops import Price
    from tuner.presets import Score


@dataclass(frozen=True)
class Trial:
    """A schedule that the study evaluates on the search prompts.

    Attributes:
        number: From 0, in the order of their start.
        label: Where it comes from; see `Candidate`.
        schedule: What is evaluated.
        price: Its cost per image.
    """

    number: int
    label: str
    schedule: Schedule
    price: Price


class Loop:
    """Runs the references and the proposals of one study.

    Trial i is chosen, a reference or a proposal, when the baseline and trials 0 to i - lag are finished and told,
    in order; up to ``lag`` trials run at the same time, split into chunks over all workers. Whether trial i goes
    on after a rung is decided by the same trials 0 to i - lag, so nothing depends on what finished first.
    References that were never chosen run after all others.

    Args:
        plan: The search.
        evaluations: What runs the tasks.
        record: Where finished trials are kept.
        on_change: Called whenever a task has come back.
    """

    def __init__(self, plan: Plan, evaluations: Evaluations, record: TrialRecord, on_change: Callable[[], None]):
        self._plan = plan
        self._evaluations = evaluations
        self._record = record
        self._on_change = on_change
        self._proposer = Proposer(plan)
        self._told = 0
        self._recorded: int | None = None  # trials of the Optuna study; None while there may be more
        self._rungs: dict[int, int] = {}  # by number, the rung that a trial is on
        self._outcomes: dict[int, Scores | Failure] = {}  # by number; of fewer prompts where a trial was stopped
        self._baseline_scores: Scores | None = None
        self._rules = StopRules(plan)
        self.ended_by: EndedBy = "trials"
        self.trials: list[Trial] = []

    @property
    def total(self) -> int:
        """Trials when all are done, references included."""
        return len(self._plan.references) + self._plan.settings.trials

    @property
    def finished(self) -> list[Trial]:
        """The trials that have an outcome, failed ones included."""
        return [trial for trial in self.trials if trial.number in self._outcomes]

    @property
    def tflops_of_trials(self) -> float:
        """What the finished trials took, as far as they went."""
        prompts = self._plan.rungs[-1]
        scored = {
            number: prompts if isinstance(scores, Failure) else _prompts_of(scores)
            for number, scores in self._outcomes.items()
        }
        return sum(self.trials[number].price.tflops * count for number, count in scored.items())

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
            self._judge()
            if self._may_propose(deadline):
                self._start(*self._propose())
            elif self._recorded is None and self._is_over():
                self._close()
            elif self._evaluations.working:
                self._evaluations.wait()
                self._on_change()
            else:
                break
        while self._told < (self._recorded or 0):
            self._tell()

    def candidates(self) -> list[Candidate]:
        """Makes records of the trials that finished and did not fail, in order."""
        baseline = self._baseline()
        prompts = self._plan.rungs[-1]
        estimates = self.estimates()
        means = expected_scores(self._plan, [self.trials[n] for n in estimates], list(estimates.values()))
        expected = dict(zip(estimates, means, strict=True))
        candidates = []
        for trial in self.trials:
            scores = self._outcomes.get(trial.number)
            if baseline is None or scores is None or isinstance(scores, Failure):
                continue
            scored = _prompts_of(scores)
            candidates.append(
                Candidate(
                    trial=trial.number,
                    label=trial.label,
                    tflops=trial.price.tflops,
                    speedup=self._plan.baseline_price.tflops / trial.price.tflops,
                    nfe=trial.price.nfe,
                    seconds=self._plan.seconds(trial.price),
                    scores=paired_scores(scores, baseline),
                    schedule=trial.schedule,
                    stopped_at=scored if scored < prompts else None,
                    expected=expected[trial.number],
                )
            )
        return candidates

    def estimates(self) -> dict[int, dict[str, Estimate]]:
        """Estimates the means on all prompts of the trials that finished and did not fail, by number, in order."""
        estimates = {trial.number: self._estimated(trial) for trial in self.finished}
        return {number: means for number, means in estimates.items() if means is not None}

    def _judge(self) -> None:
        """Ends the trials whose last rung is over, and ends or sends on those that another rung is over for."""
        for trial in self.trials[self._told :]:  # in order, as one that ends may let a later one be decided
            while trial.number not in self._outcomes and self._judge_rung(trial):
                pass

    def _judge_rung(self, trial: Trial) -> bool:
        """Decides on a trial after its rung; returns whether there was something to decide."""
        rung = self._rungs[trial.number]
        scores = self._evaluations.outcome(
            [task for below in range(rung + 1) for task in self._plan.rung_tasks(trial.schedule, below)]
        )
        if scores is None:
            return False
        last = rung + 1 == len(self._plan.rungs)
        if last or isinstance(scores, Failure):
            self._outcomes[trial.number] = scores
            return True
        visible = self._visible(trial.number)
        if not all(earlier.number in self._outcomes for earlier in visible):
            return False
        cost = self._plan.budget.cost
        rivals = [
            finished
            for earlier in visible
            if cost(earlier.price) <= cost(trial.price) and (finished := self._full_scores(earlier)) is not None
        ]
        if is_beaten(scores, rivals, self._plan.directions, looks=len(self._plan.rungs) - 1):
            self._outcomes[trial.number] = scores
        else:
            self._climb(trial, rung + 1)
        return True

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
        elif rule := self._rules.ended_by(visible, self._outcomes, self.trials[len(visible) :]):
            self.ended_by = rule
        return self.ended_by == "trials"

    def _is_over(self) -> bool:
        """Whether nothing more is proposed: a rule says so, or only references that wait are left."""
        return self.ended_by != "trials" or len(self.trials) + len(self._proposer.waiting) >= self.total

    def _close(self) -> None:
        """Starts the references that still wait: they promise little, but are what users compare with.

        After the time limit that is the cheapest alone, and only if there is no trial at all, as a study has a
        result. They are neither told nor recorded, so more proposals extend the study as if asked for at once.
        """
        self._recorded = len(self.trials)
        late = self.ended_by == "time limit"
        for reference in self._proposer.waiting[: int(not self.trials) if late else None]:
            self._start(reference.label, reference.schedule)

    def _propose(self) -> tuple[str, Schedule]:
        number = len(self.trials)
        while self._told < len(self._visible(number)):
            self._tell()
        if number < len(self._record.trials):
            return self._repeat(self._record.trials[number])
        return self._proposer.propose()

    def _repeat(self, known: optuna.trial.FrozenTrial) -> tuple[str, Schedule]:
        """Makes a trial of an earlier sitting the next one."""
        for reference in self._proposer.waiting:
            if reference.label == known.user_attrs["label"]:
                return self._proposer.refer(reference)
        return self._proposer.repeat(known.params, Schedule.model_validate(known.user_attrs["schedule"]))

    def _start(self, label: str, schedule: Schedule) -> None:
        self.trials.append(Trial(len(self.trials), label, schedule, self._plan.price(schedule)))
        self._climb(self.trials[-1], 0)

    def _climb(self, trial: Trial, rung: int) -> None:
        self._rungs[trial.number] = rung
        self._evaluations.request(self._plan.rung_tasks(trial.schedule, rung))

    def _tell(self) -> None:
        self._record.add(self._proposer.tell(self._estimated(self.trials[self._told])))
        self._told += 1

    def _estimated(self, trial: Trial) -> dict[str, Estimate] | None:
        """Means on all prompts, of a stopped trial what they are expected to be, and how far to trust them."""
        scores, baseline = self._outcomes[trial.number], self._baseline()
        if isinstance(scores, Failure) or baseline is None:
            return None
        return {name: estimated(values, baseline[name]) for name, values in scores.items()}

    def _full_scores(self, trial: Trial) -> Scores | None:
        scores = self._outcomes.get(trial.number)
        if scores is None or isinstance(scores, Failure) or _prompts_of(scores) < self._plan.rungs[-1]:
            return None
        return scores

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


def _prompts_of(scores: Scores) -> int:
    return len(next(iter(scores.values())))


def paired_scores(scores: Scores, baseline: Scores) -> dict[str, Score]:
    """Compares every objective's scores with the baseline's on the same prompts, the first of the baseline's."""
    return {name: paired_score(values, baseline[name][: len(values)]) for name, values in scores.items()}
