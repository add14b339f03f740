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
    from studies.plan import Plan
    from studies.references import Reference

_LISTED = 100  # finished trials that the sampler sees; see `Shortlist`
_SAMPLER_ATTEMPTS = 4
_ATTEMPTS = 40


class Proposer:
    """Turns numbers of trials into schedules, and learns from their scores.

    Args:
        plan: The search.
    """

    def __init__(self, plan: Plan):
        import optuna

        from studies.shortlist import Shortlist

        self._plan = plan
        directions = directions_of(plan)
        self._study = optuna.create_study(storage=Shortlist(_LISTED, directions), directions=directions)
        self._asked: list[optuna.Trial] = []
        self._proposed: set[str] = set()  # content hashes
        self._told = 0

    def refer(self, reference: Reference) -> None:
        """Makes a reference the next trial; its parameters are known to the sampler where the space has it."""
        try:
            params = self._plan.space.params_of(reference.schedule)
        except ValueError:
            trial = self._ask(self._sampler())
        else:
            self._study.enqueue_trial(params)
            trial = self._ask(self._sampler())
            self._proposed.add(self._plan.space.suggest(trial).content_hash)  # rounded unlike the reference
        self._accept(trial, reference.label, reference.schedule)

    def propose(self) -> Schedule:
        """Asks for the schedule of the next trial, which is none that was proposed before.

        Where the sampler repeats itself, it is asked again with another seed, and then random parameters are
        tried. A space in which nothing new is found repeats a schedule, which costs nothing: what is evaluated
        is not run again.
        """
        for attempt in range(_ATTEMPTS):
            trial = self._ask(self._sampler(attempt))
            schedule = self._plan.space.suggest(trial)
            if schedule.content_hash not in self._proposed or attempt == _ATTEMPTS - 1:
                break
            self._study.tell(trial, state=_failed())  # the sampler does not learn from those
        self._accept(trial, "search", schedule)
        return schedule

    def repeat(self, params: Mapping[str, Any], schedule: Schedule) -> None:
        """Makes a proposal of an earlier sitting the next trial."""
        self._study.enqueue_trial(dict(params))
        trial = self._ask(self._sampler())
        self._plan.space.suggest(trial)
        self._accept(trial, "search", schedule)

    def tell(self, scores: Mapping[str, float] | None) -> optuna.trial.FrozenTrial:
        """Tells the sampler how the first trial went that it has not been told of yet.

        Args:
            scores: Mean of each objective; None if the trial failed.

        Returns:
            The finished trial.
        """
        trial = self._asked[self._told]
        self._told += 1
        if scores is None:
            return self._study.tell(trial, state=_failed())
        values = [*(scores[name] for name in self._plan.directions), trial.user_attrs["cost"]]
        return self._study.tell(trial, values)

    def _sampler(self, attempt: int = 0) -> optuna.samplers.BaseSampler:
        """A fresh sampler for the next trial, so that what it does depends on the trial's number alone."""
        import optuna

        number = len(self._asked)
        seed = _seed(self._plan.settings.seed, f"{number}/{attempt}" if attempt else str(number))
        if attempt >= _SAMPLER_ATTEMPTS:
            return optuna.samplers.RandomSampler(seed=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.TPESampler(multivariate=True, group=True, constant_liar=False, seed=seed)

    def _ask(self, sampler: optuna.samplers.BaseSampler) -> optuna.Trial:
        self._study.sampler = sampler
        return self._study.ask()

    def _accept(self, trial: optuna.Trial, label: str, schedule: Schedule) -> None:
        price = self._plan.price(schedule)
        for name, value in {
            "label": label,
            "schedule": schedule.model_dump(mode="json"),
            "tflops": price.tflops,
            "cost": self._plan.budget.cost(price),
            "nfe": price.nfe,
        }.items():
            trial.set_user_attr(name, value)
        self._asked.append(trial)
        self._proposed.add(schedule.content_hash)


def directions_of(plan: Plan) -> Sequence[Direction]:
    """The directions of the Optuna study: every objective's, and a lower cost."""
    return [*plan.directions.values(), "minimize"]


def _failed() -> optuna.trial.TrialState:
    import optuna

    return optuna.trial.TrialState.FAIL


def _seed(study_seed: int, of: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{study_seed}/{of}".encode()).digest()[:4], "big")
