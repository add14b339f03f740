"""Which schedule comes next: Optuna's TPE, asked so that the answer depends on nothing but the results so far.

A study of its own in memory is shown to the sampler. Trial i is proposed by a fresh sampler, seeded from the
study's seed and i, that sees the results of trials 0 to i - lag and no others, however many workers there were and
whatever was interrupted.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tuner.schedule import Schedule

if TYPE_CHECKING:
    import optuna

    from objectives.base import Direction
    from studies.plan import Plan, Reference


class Proposer:
    """Turns numbers of trials into schedules, and learns from their scores.

    Args:
        plan: The search.
    """

    def __init__(self, plan: Plan):
        import optuna

        self._plan = plan
        self._study = optuna.create_study(directions=directions_of(plan))
        self._asked: list[optuna.Trial] = []
        self._told = 0

    def refer(self, reference: Reference) -> None:
        """Makes a reference the next trial; its parameters are known to the sampler where the space has it."""
        try:
            params = self._plan.space.params_of(reference.schedule)
        except ValueError:
            self._ask(None)
        else:
            trial = self._ask(params)
            self._plan.space.suggest(trial, self._plan.budget)
        self._describe(reference.label, reference.schedule)

    def propose(self) -> Schedule:
        """Asks for the schedule of the next trial."""
        schedule = self._plan.space.suggest(self._ask(None), self._plan.budget)
        self._describe("search", schedule)
        return schedule

    def repeat(self, params: Mapping[str, Any], schedule: Schedule) -> None:
        """Makes a proposal of an earlier sitting the next trial."""
        self._plan.space.suggest(self._ask(params), self._plan.budget)
        self._describe("search", schedule)

    def tell(self, scores: Mapping[str, float] | None) -> optuna.trial.FrozenTrial:
        """Tells the sampler how the first trial went that it has not been told of yet.

        Args:
            scores: Mean of each objective; None if the trial failed.

        Returns:
            The finished trial.
        """
        import optuna

        trial = self._asked[self._told]
        self._told += 1
        if scores is None:
            return self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        values = [*(scores[name] for name in self._plan.directions), trial.user_attrs["tflops"]]
        trial.set_constraint("beyond the budget", 0.0 if trial.user_attrs["affordable"] else 1.0)
        return self._study.tell(trial, values)

    def _ask(self, params: Mapping[str, Any] | None) -> optuna.Trial:
        import optuna

        if params is not None:
            self._study.enqueue_trial(dict(params))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.sampler = optuna.samplers.TPESampler(
                multivariate=True,
                group=True,
                constant_liar=False,
                seed=_seed(self._plan.settings.seed, len(self._asked)),
            )
        trial = self._study.ask()
        self._asked.append(trial)
        return trial

    def _describe(self, label: str, schedule: Schedule) -> None:
        price = self._plan.price(schedule)
        for name, value in {
            "label": label,
            "schedule": schedule.model_dump(mode="json"),
            "tflops": price.tflops,
            "nfe": price.nfe,
            "affordable": self._plan.budget.allows(price),
        }.items():
            self._asked[-1].set_user_attr(name, value)


def directions_of(plan: Plan) -> Sequence[Direction]:
    """The directions of the Optuna study: every objective's, and fewer TFLOPs."""
    return [*plan.directions.values(), "minimize"]


def _seed(study_seed: int, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{study_seed}/{number}".encode()).digest()[:4], "big")
