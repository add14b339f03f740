"""Which schedule comes next: the one of many drawn that promises most hypervolume for its cost.

What a schedule costs is known before it runs; what it scores is predicted from the results so far
(`studies.surrogate`). The cost that counts is what is left to run, as workers keep the stages that trials begin
with (`studies.caches`). Trial i is drawn and chosen from the study's seed, i, and the results of trials 0 to
i - lag and no others, however many workers there were and whatever was interrupted. The trials between are known
by their schedules alone: they are taken to score what is predicted of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from itertools import compress
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from objectives.base import loss_sign
from studies.caches import beginnings, kept_stages
from studies.draws import Draw
from studies.features import features
from studies.gains import Array, reference_point
from studies.results import PROPOSED
from studies.surrogate import LEAST_KNOWN, Results, Unscored
from tuner.schedule import Schedule

if TYPE_CHECKING:
    import optuna

    from objectives.base import Direction
    from studies.plan import Plan
    from studies.references import Reference
    from studies.rungs import Estimate
    from tuner.flops import Price

_LISTED = 100  # finished trials that predictions are made from; see `Shortlist`
_DRAWN = 64  # schedules that are drawn for a proposal
_ATTEMPTS = 4  # times as many draws before a space counts as exhausted
_HEADROOMS = (0.02, 0.25)  # in turn: one trial closes gaps of the front, the next looks beyond it
_DRAWN_UNSCORED = 256  # without scores that is cheap


class _Drawn(NamedTuple):
    params: Mapping[str, Any]
    schedule: Schedule


class Proposer:
    """Turns numbers of trials into schedules, and learns from their scores.

    A reference waits until it is the most promising of all candidates; the cheapest one comes first.

    Args:
        plan: The search.

    Attributes:
        waiting: The references that are no trials yet, the cheapest first.
    """

    def __init__(self, plan: Plan):
        import optuna

        from studies.shortlist import Shortlist

        self._plan = plan
        directions = directions_of(plan)
        self._signs = np.array([loss_sign(way) for way in plan.directions.values()])
        self._study = optuna.create_study(
            storage=Shortlist(_LISTED, directions),
            directions=directions,
            sampler=optuna.samplers.RandomSampler(seed=plan.settings.seed),
        )
        self.waiting = list(plan.references)
        self._asked: list[optuna.Trial] = []
        self._features: dict[int, tuple[float, ...]] = {}  # by the study's number of the trial
        self._errors: dict[int, list[float]] = {}
        self._known = {reference.schedule.content_hash for reference in plan.references}  # not to be drawn again
        self._begun: set[Hashable] = set()  # the stages that trials begin with
        self._given: list[Array] = []  # losses of the references
        self._told = 0

    def propose(self) -> tuple[str, Schedule]:
        """Makes the most promising candidate the next trial: a reference that waits, or a schedule that is new.

        A space in which nothing new is found repeats a schedule, which costs nothing: what is evaluated is not run
        again.

        Returns:
            Its label, see `studies.results.Candidate`, and the schedule.
        """
        rng = Random(_seed(self._plan.settings.seed, str(len(self._asked))))
        if not self._asked:
            return self._first(rng)
        known = self._complete()
        results = self._results(known) if len(known) >= LEAST_KNOWN else None
        front = compress(known, results.on_front()) if results else ()
        count = _DRAWN if results else _DRAWN_UNSCORED
        drawn = self._draw(rng, [trial.params for trial in front if trial.params], count)
        schedules = [*(reference.schedule for reference in self.waiting), *(one.schedule for one in drawn)]
        chosen = self._most_promising(results, schedules)
        if chosen < len(self.waiting):
            return self.refer(self.waiting[chosen])
        return self.repeat(*drawn[chosen - len(self.waiting)])

    def refer(self, reference: Reference) -> tuple[str, Schedule]:
        """Makes a reference the next trial, with its parameters where the space has it."""
        self.waiting.remove(reference)
        try:
            params = self._plan.space.params_of(reference.schedule)
        except ValueError:
            trial = self._study.ask()
        else:
            trial = self._ask(params)
            self._known.add(self._plan.space.suggest(trial).content_hash)  # rounded unlike the reference
        return self._accept(trial, reference.label, reference.schedule)

    def repeat(self, params: Mapping[str, Any], schedule: Schedule) -> tuple[str, Schedule]:
        """Makes a proposal of these parameters, or of an earlier sitting, the next trial."""
        trial = self._ask(params)
        self._plan.space.suggest(trial)
        return self._accept(trial, PROPOSED, schedule)

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
        if trial.user_attrs["label"] != PROPOSED:
            self._given.append(self._signs * means)
        return self._study.tell(trial, [*means, trial.user_attrs["cost"]])

    def _first(self, rng: Random) -> tuple[str, Schedule]:
        """Makes the cheapest reference the first trial, which others are weighed against; without any, a draw."""
        if self.waiting:
            return self.refer(self.waiting[0])
        (drawn,) = self._draw(rng, (), 1)
        return self.repeat(*drawn)

    def _draw(self, rng: Random, near: Sequence[Mapping[str, Any]], count: int) -> list[_Drawn]:
        """Draws schedules that were not proposed before, every second one near one of these parameters."""
        new: dict[str, _Drawn] = {}
        for attempt in range(_ATTEMPTS * count):
            answers = Draw(rng, rng.choice(near) if near and attempt % 2 else None)
            drawn = _Drawn(answers.drawn, self._plan.space.suggest(answers))
            if drawn.schedule.content_hash not in self._known:
                new[drawn.schedule.content_hash] = drawn
            if len(new) == count:
                break
        return list(new.values()) or [drawn]

    def _results(self, known: Sequence[optuna.trial.FrozenTrial]) -> Results:
        values = np.array([trial.values for trial in known])
        losses, running = self._signs * values[:, :-1], self._asked[self._told :]
        return Results(
            features=np.array([self._features[trial.number] for trial in known]),
            costs=values[:, -1],
            losses=losses,
            errors=np.array([self._errors[trial.number] for trial in known]),
            running=np.array([self._features[trial.number] for trial in running]),
            running_costs=np.array([trial.user_attrs["cost"] for trial in running]),
            reference=reference_point(self._plan.budget.limit, np.array(self._given or losses)),
        )

    def _unscored(self) -> Unscored:
        return Unscored(
            features=np.array(list(self._features.values())),
            costs=np.array([trial.user_attrs["cost"] for trial in self._asked]),
            limit=self._plan.budget.limit,
        )

    def _most_promising(self, results: Results | None, schedules: Sequence[Schedule]) -> int:
        """Finds the one that is expected to add most hypervolume for what is left to run of it."""
        known = results or self._unscored()
        prices = [self._plan.price(schedule) for schedule in schedules]
        wanted = np.array([features(*priced) for priced in zip(schedules, prices, strict=True)])
        costs = np.array([self._plan.budget.cost(price) for price in prices])
        left = np.array([self._left(*priced) for priced in zip(schedules, prices, strict=True)])
        headroom = _HEADROOMS[len(self._asked) % len(_HEADROOMS)]
        return int(np.argmax(known.expected_gains(wanted, costs, headroom) / (left * costs)))

    def _left(self, schedule: Schedule, price: Price) -> float:
        """The part of a schedule's cost that is left to run once the stages are kept that trials began with."""
        kept = kept_stages(beginnings(schedule), self._begun)
        return sum(stage.tflops for stage in price.stages[kept:]) / price.tflops

    def _complete(self) -> list[optuna.trial.FrozenTrial]:
        import optuna

        return self._study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))

    def _ask(self, params: Mapping[str, Any]) -> optuna.Trial:
        self._study.enqueue_trial(dict(params))
        return self._study.ask()

    def _accept(self, trial: optuna.Trial, label: str, schedule: Schedule) -> tuple[str, Schedule]:
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
        self._known.add(schedule.content_hash)
        self._begun.update(beginnings(schedule))
        return label, schedule


def directions_of(plan: Plan) -> Sequence[Direction]:
    """Which way each value of a trial improves: every objective, and then the cost."""
    return [*plan.directions.values(), "minimize"]


def _seed(study_seed: int, of: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{study_seed}/{of}".encode()).digest()[:4], "big")
