"""The search itself: ask, evaluate, tell, until all trials are finished."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from studies.evaluation import Failure, Task
from studies.proposals import Proposer
from studies.results import Candidate
from studies.statistics import paired_score
from tuner.schedule import Schedule

if TYPE_CHECKING:
    from studies.evaluations import Evaluations
    from studies.plan import Plan
    from studies.storage import TrialRecord
    from tuner.flops import Price
    from tuner.presets import Score


@dataclass(frozen=True)
class Trial:
    """A schedule that the study evaluates on the search prompts.

    Attributes:
        number: From 0, references first.
        label: Where it comes from; see `Candidate`.
        schedule: What is evaluated.
        price: Its cost per image.
        tasks: Its units of work.
    """

    number: int
    label: str
    schedule: Schedule
    price: Price
    tasks: list[Task]


class Loop:
    """Runs the references and the proposals of one study.

    Trial i is proposed when trials 0 to i - lag are finished and told, in order; up to ``lag`` trials and all
    references run at the same time, split into chunks over all workers.

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
        self._outcomes: dict[int, dict[str, list[float]] | Failure] = {}
        self.trials: list[Trial] = []

    @property
    def total(self) -> int:
        """Trials when all are done, references included."""
        return len(self._plan.references) + self._plan.settings.trials

    @property
    def finished(self) -> list[Trial]:
        """The trials that have an outcome, failed ones included."""
        return [trial for trial in self.trials if self._outcome(trial) is not None]

    def best(self) -> dict[str, float]:
        """The best mean of each objective among finished trials within the budget."""
        means = [
            means
            for trial in self.trials
            if self._plan.budget.allows(trial.price) and (means := self._means(trial)) is not None
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
        baseline = self._plan.search_tasks(self._plan.baseline)
        self._evaluations.request(baseline)
        for reference in self._plan.references:
            self._proposer.refer(reference)
            self._start(reference.label, reference.schedule)
        while True:
            while self._may_propose(deadline):
                self._start("search", self._propose())
            failed = self._evaluations.outcome(baseline)
            if isinstance(failed, Failure):
                raise RuntimeError(f"the baseline failed, so nothing can be compared with it: {failed.reason}")
            if not self._evaluations.working:
                break
            self._evaluations.wait()
            self._on_change()
        while self._told < len(self.trials):
            self._tell()

    def candidates(self) -> list[Candidate]:
        """Makes records of the trials that finished and did not fail, in order."""
        baseline = self._evaluations.outcome(self._plan.search_tasks(self._plan.baseline))
        candidates = []
        for trial in self.trials:
            scores = self._outcome(trial)
            if isinstance(scores, dict) and isinstance(baseline, dict):
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
                    )
                )
        return candidates

    def _may_propose(self, deadline: float | None) -> bool:
        number = len(self.trials)
        if number >= self.total or (deadline is not None and time.monotonic() >= deadline):
            return False
        visible = number - self._plan.settings.lag + 1
        return all(self._outcome(trial) is not None for trial in self.trials[: max(0, visible)])

    def _propose(self) -> Schedule:
        number = len(self.trials)
        while self._told < number - self._plan.settings.lag + 1:
            self._tell()
        if number < len(self._record.trials):
            known = self._record.trials[number]
            schedule = Schedule.model_validate(known.user_attrs["schedule"])
            self._proposer.repeat(known.params, schedule)
            return schedule
        return self._proposer.propose()

    def _start(self, label: str, schedule: Schedule) -> None:
        tasks = self._plan.search_tasks(schedule)
        self.trials.append(Trial(len(self.trials), label, schedule, self._plan.price(schedule), tasks))
        self._evaluations.request(tasks)

    def _tell(self) -> None:
        self._record.add(self._proposer.tell(self._means(self.trials[self._told])))
        self._told += 1

    def _outcome(self, trial: Trial) -> dict[str, list[float]] | Failure | None:
        outcome = self._outcomes.get(trial.number) or self._evaluations.outcome(trial.tasks)
        if outcome is not None:
            self._outcomes[trial.number] = outcome
        return outcome

    def _means(self, trial: Trial) -> dict[str, float] | None:
        scores = self._outcome(trial)
        return {name: fmean(values) for name, values in scores.items()} if isinstance(scores, dict) else None


def paired_scores(scores: Mapping[str, list[float]], baseline: Mapping[str, list[float]]) -> dict[str, Score]:
    """Compares every objective's scores with the baseline's on the same prompts."""
    return {name: paired_score(values, baseline[name]) for name, values in scores.items()}
