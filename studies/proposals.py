"""Which schedule comes next: the one of many drawn that promises most hypervolume for its cost.

What a schedule costs is known before it runs; what it scores is predicted from the results so far
(`studies.surrogate`). Trial i is drawn and chosen from the study's seed, i, and the results of trials 0 to i - lag
and no others, however many workers there were and whatever was interrupted. The trials between are known by their
schedules alone: they are taken to score what is predicted of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from studies.draws import Draw
from studies.features import features
from studies.gains import Array, reference_point
from studies.surrogate import Results
from tuner.schedule import Schedule

if TYPE_CHECKING:
    import optuna

    from objectives.base import Direction
    from studies.plan import Plan
    from studies.references import Reference
    from studies.rungs import Estimate
    from tuner.flops import Price

_LISTED = 100  # finished trials that predictions are made from; see `Shortlist`
_DRAWN = 128  # schedules that are drawn for a proposal
_ATTEMPTS = 4 * _DRAWN
_LEAST_KNOWN = 3  # results without which there is nothing to predict from


class _Drawn(NamedTuple):
    params: dict[str, Any]
    schedule: Schedule
    price: Price


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
        self._signs = np.array([-1.0 if way == "maximize" else 1.0 for way in plan.directions.values()])
        self._study = optuna.create_study(
            storage=Shortlist(_LISTED, directions),
            directions=directions,
            sampler=optuna.samplers.RandomSampler(seed=plan.settings.seed),
        )
        self._asked: list[optuna.Trial] = []
        self._features: dict[int, list[float]] = {}  # by the study's number of the trial
        self._errors: dict[int, list[float]] = {}
        self._proposed: set[str] = set()  # content hashes
        self._given: list[Array] = []  # losses of the references
        self._told = 0

    def refer(self, reference: Reference) -> None:
        """Makes a reference the next trial; its parameters are known to the sampler where the space has it."""
        try:
            params = self._plan.space.params_of(reference.schedule)
        except ValueError:
            trial = self._study.ask()
        else:
            trial = self._ask(params)
            self._proposed.add(self._plan.space.suggest(trial).content_hash)  # rounded unlike the reference
        self._accept(trial, reference.label, reference.schedule)

    def propose(self) -> Schedule:
        """Chooses the schedule of the next trial, which is none that was proposed before.

        A space in which nothing new is found repeats a schedule, which costs nothing: what is evaluated is not run
        again.
        """
        rng = Random(_seed(self._plan.settings.seed, str(len(self._asked))))
        drawn = self._draw(rng)
        chosen = drawn[self._most_promising(drawn)]
        self.repeat(chosen.params, chosen.schedule)
        return chosen.schedule

    def repeat(self, params: Mapping[str, Any], schedule: Schedule) -> None:
        """Makes a proposal of these parameters, or of an earlier sitting, the next trial."""
        trial = self._ask(params)
        self._plan.space.suggest(trial)
        self._accept(trial, "search", schedule)

    def tell(self, estimates: Mapping[str, Estimate] | None) -> optuna.trial.FrozenTrial:
        """Tells how the first trial went that nothing has been told of yet.

        Args:
            estimates: Mean of each objective; None if the trial failed.

        Returns:
            The finished trial.
        """
        import optuna

        trial = self._asked[self._told]
        self._told += 1
        if estimates is None:
            return self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        self._errors[trial.number] = [estimates[name].error for name in self._plan.directions]
        means = [estimates[name].mean for name in self._plan.directions]
        if trial.user_attrs["label"] != "search":
            self._given.append(self._signs * means)
        return self._study.tell(trial, [*means, trial.user_attrs["cost"]])

    def _draw(self, rng: Random) -> list[_Drawn]:
        """Draws schedules that were not proposed before, three of four near members of the front."""
        near = [trial.params for trial in self._front() if trial.params]
        drawn: dict[str, _Drawn] = {}
        known: _Drawn | None = None
        for attempt in range(_ATTEMPTS):
            some = Draw(rng, rng.choice(near) if near and attempt % 4 else None)
            schedule = self._plan.space.suggest(some)
            known = known or _Drawn(some.drawn, schedule, self._plan.price(schedule))
            if schedule.content_hash not in drawn and schedule.content_hash not in self._proposed:
                drawn[schedule.content_hash] = _Drawn(some.drawn, schedule, self._plan.price(schedule))
            if len(drawn) == _DRAWN:
                break
        assert known is not None  # the first attempt found it
        return list(drawn.values()) or [known]

    def _most_promising(self, drawn: Sequence[_Drawn]) -> int:
        """Finds the one that wins most hypervolume per TFLOP; the first where too little is known to tell."""
        complete = self._complete()
        if len(complete) < _LEAST_KNOWN:
            return 0
        values = np.array([trial.values for trial in complete])
        losses, known_costs = self._signs * values[:, :-1], values[:, -1]
        results = Results(
            features=np.array([self._features[trial.number] for trial in complete]),
            costs=known_costs,
            losses=losses,
            errors=np.array([self._errors[trial.number] for trial in complete]),
            running=np.array([self._features[trial.number] for trial in self._asked[self._told :]]),
            running_costs=np.array([trial.user_attrs["cost"] for trial in self._asked[self._told :]]),
        )
        reference = reference_point(self._plan.budget.limit, np.array(self._given or losses))
        wanted = np.array([features(one.schedule, one.price) for one in drawn])
        costs = np.array([self._plan.budget.cost(one.price) for one in drawn])
        worth = results.expected_gains(wanted, costs, reference) / costs
        return int(np.argmax(worth))

    def _complete(self) -> list[optuna.trial.FrozenTrial]:
        import optuna

        return self._study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))

    def _front(self) -> list[optuna.trial.FrozenTrial]:
        complete = self._complete()
        losses = np.array([[*self._signs, 1.0] * np.array(trial.values) for trial in complete])
        return [
            trial
            for trial, mine in zip(complete, losses, strict=True)
            if not np.any(np.all(losses <= mine, axis=1) & np.any(losses < mine, axis=1))
        ]

    def _ask(self, params: Mapping[str, Any]) -> optuna.Trial:
        self._study.enqueue_trial(dict(params))
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
        self._features[trial.number] = features(schedule, price)
        self._asked.append(trial)
        self._proposed.add(schedule.content_hash)


def directions_of(plan: Plan) -> Sequence[Direction]:
    """The x."""
    return [*plan.directions.values(), "minimize"]


def _seed(study_seed: int, of: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{study_seed}/{of}".encode()).digest()[:4], "big")
