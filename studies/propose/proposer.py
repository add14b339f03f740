"""Which schedule comes next: the one of many that promises most hypervolume for its cost.

A trial scores a schedule on the prompts of one rung (`studies.judge.early_stopping`). So what comes next is one of
many schedules that are drawn, a reference, or what was scored on a part of the prompts and may go on. What a
schedule costs is known before it runs; what it scores is predicted from the results so far
(`studies.propose.surrogate`). The cost that counts is what is left to run until it is scored on all prompts:
without those that it was scored on, and without the stages that workers keep of trials that begin alike
(`studies.work.reuse`).

Trial i is drawn and chosen from the study's seed, i, and the results of trials 0 to i - lag and no others, however
many workers there were and whatever was interrupted. The trials between are known by their schedules alone: they
are taken to score what is predicted of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from itertools import compress
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from objectives.base import loss_sign
from studies.propose.features import features
from studies.propose.improvement import Array, reference_point
from studies.propose.random_trial import Draw
from studies.propose.surrogate import LEAST_KNOWN, Results, Unscored
from studies.records.results import PROPOSED
from studies.work.reuse import beginnings
from tuner.errors import UserError
from tuner.schedule import Schedule

if TYPE_CHECKING:
    import optuna

    from studies.judge.early_stopping import Estimate
    from studies.plan.plan import Plan
    from studies.plan.references import Reference
    from tuner.flops import Price

_LISTED = 100  # finished trials that predictions are made from; see `Shortlist`
_DRAWN = 64  # schedules that are drawn for a proposal
_ATTEMPTS = 4  # times as many draws before a space counts as exhausted
_HEADROOMS = (0.02, 0.25)  # in turn: one trial closes gaps of the front, the next looks beyond it
_DRAWN_UNSCORED = 256  # without scores that is cheap


class Proposal(NamedTuple):
    """A schedule to be scored on the prompts of a rung.

    Attributes:
        label: Where it comes from; see `studies.records.results.Candidate`.
        schedule: What is scored.
        params: What the space makes it from; None where the space does not have it.
        rung: See `studies.judge.early_stopping`.
        continues: Number of the trial that scored it on the rung before; None on the first one.
    """

    label: str
    schedule: Schedule
    params: Mapping[str, Any] | None
    rung: int = 0
    continues: int | None = None


class Proposer:
    """Turns numbers of trials into schedules, and learns from their scores.

    A reference waits until it is the most promising of all candidates; the cheapest one comes first. What was
    scored on a part of the prompts rests until it is.

    Args:
        plan: The search.

    Attributes:
        waiting: The references that are no trials yet, the cheapest first.
    """

    def __init__(self, plan: Plan):
        import optuna

        from studies.propose.shortlist import Shortlist

        self._plan = plan
        directions = plan.value_directions
        self._signs = np.array([loss_sign(way) for way in plan.directions.values()])
        self._study = optuna.create_study(
            storage=Shortlist(_LISTED, directions),
            directions=directions,
            sampler=optuna.samplers.RandomSampler(seed=plan.settings.seed),
        )
        self.waiting = [self._of(reference) for reference in plan.references]
        self._resting: dict[int, Proposal] = {}  # by number of the trial that they continue
        self._asked: list[tuple[optuna.Trial, Proposal]] = []
        self._features: dict[int, tuple[float, ...]] = {}  # by the study's number of the trial
        self._errors: dict[int, list[float]] = {}
        self._known = {reference.schedule.content_hash for reference in plan.references}  # not to be drawn again
        self._begun: dict[Hashable, int] = {}  # the stages that trials begin with, and on how many prompts
        self._given: dict[str, Array] = {}  # losses of the references, by label
        self._told = 0

    @property
    def resting(self) -> list[Proposal]:
        """What was scored on a part of the prompts and may go on, in the order of the trials."""
        return list(self._resting.values())

    def propose(self) -> Proposal:
        """Makes the most promising candidate the next trial: one that waits or rests, or a schedule that is new.

        A space in which nothing new is found repeats a schedule, which costs nothing: what is evaluated is not run
        again.

        Raises:
            UserError: If the search is for a target that carries nothing of what the space draws.
        """
        rng = Random(_seed(self._plan.settings.seed, str(len(self._asked))))
        if not self._asked:
            return self._first(rng)
        known = self._complete()
        results = self._results(known) if len(known) >= LEAST_KNOWN else None
        front = compress(known, results.on_front()) if results else ()
        count = _DRAWN if results else _DRAWN_UNSCORED
        drawn = self._draw(rng, [trial.params for trial in front if trial.params], count)
        resting = [self._resting[trial.number] for trial in known if trial.number in self._resting]
        return self.start(self._most_promising(results, [*self.waiting, *resting, *drawn]))

    def start(self, proposal: Proposal) -> Proposal:
        """Makes a proposal the next trial: one that waits or rests, or a new one; returns it unchanged."""
        if proposal in self.waiting:
            self.waiting.remove(proposal)
        if proposal.continues is not None:
            del self._resting[proposal.continues]
        if proposal.params is None:
            trial = self._study.ask()
        else:
            self._study.enqueue_trial(dict(proposal.params))
            trial = self._study.ask()
            self._known.add(self._plan.space.suggest(trial).content_hash)  # of a reference rounded, maybe
        self._describe(trial, proposal)
        self._asked.append((trial, proposal))
        self._known.add(proposal.schedule.content_hash)
        for begun in beginnings(proposal.schedule):
            self._begun[begun] = max(self._begun.get(begun, 0), self._plan.rungs[proposal.rung])
        return proposal

    def tell(self, estimates: Mapping[str, Estimate] | None, rests: bool) -> optuna.trial.FrozenTrial:
        """Tells how the first trial went that nothing has been told of yet.

        Args:
            estimates: Mean of each objective; None if the trial failed.
            rests: Whether its schedule may go on to the next rung.

        Returns:
            The finished trial.
        """
        import optuna

        trial, proposal = self._asked[self._told]
        self._told += 1
        if rests:
            self._resting[trial.number] = proposal._replace(rung=proposal.rung + 1, continues=trial.number)
        if estimates is None:
            return self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        self._errors[trial.number] = [estimates[name].error for name in self._plan.directions]
        means = [estimates[name].mean for name in self._plan.directions]
        if proposal.label != PROPOSED:
            self._given[proposal.label] = self._signs * means
        return self._study.tell(trial, [*means, trial.user_attrs["cost"]])

    def _of(self, reference: Reference) -> Proposal:
        try:
            params = self._plan.space.params_of(reference.schedule)
        except ValueError:
            params = None
        return Proposal(reference.label, reference.schedule, params)

    def _first(self, rng: Random) -> Proposal:
        """Makes the cheapest reference the first trial, which others are weighed against; without any, a draw."""
        return self.start(self.waiting[0] if self.waiting else self._draw(rng, (), 1)[0])

    def _draw(self, rng: Random, near: Sequence[Mapping[str, Any]], count: int) -> list[Proposal]:
        """Draws schedules that were not proposed before, every second one near one of these parameters."""
        new: dict[str, Proposal] = {}
        again: list[Proposal] = []
        for attempt in range(_ATTEMPTS * count):
            answers = Draw(rng, rng.choice(near) if near and attempt % 2 else None)
            schedule = self._plan.space.suggest(answers)
            if self._plan.target and not self._plan.target.carries(schedule):
                continue
            drawn = Proposal(PROPOSED, schedule, answers.drawn)
            if schedule.content_hash in self._known:
                again = [drawn]
            else:
                new[schedule.content_hash] = drawn
            if len(new) == count:
                break
        if not new and not again:
            settings = self._plan.settings
            raise UserError(
                f"Of {_ATTEMPTS * count} schedules that the space {settings.space!r} drew, {settings.for_target} "
                "carries none; use another --space."
            )
        return list(new.values()) or again

    def _results(self, known: Sequence[optuna.trial.FrozenTrial]) -> Results:
        values = np.array([trial.values for trial in known])
        losses, running = self._signs * values[:, :-1], [trial for trial, _ in self._asked[self._told :]]
        return Results(
            features=np.array([self._features[trial.number] for trial in known]),
            costs=values[:, -1],
            losses=losses,
            whole=np.array([trial.user_attrs["prompts"] == self._plan.rungs[-1] for trial in known]),
            errors=np.array([self._errors[trial.number] for trial in known]),
            running=np.array([self._features[trial.number] for trial in running]),
            running_costs=np.array([trial.user_attrs["cost"] for trial in running]),
            reference=reference_point(self._plan.budget.limit, np.array(list(self._given.values()) or losses)),
        )

    def _unscored(self) -> Unscored:
        return Unscored(
            features=np.array(list(self._features.values())),
            costs=np.array([trial.user_attrs["cost"] for trial, _ in self._asked]),
            limit=self._plan.budget.limit,
        )

    def _most_promising(self, results: Results | None, candidates: Sequence[Proposal]) -> Proposal:
        """Finds the one that is expected to add most hypervolume for what is left to run of it."""
        known = results or self._unscored()
        priced = [(candidate.schedule, self._plan.price(candidate.schedule)) for candidate in candidates]
        wanted = np.array([features(*each) for each in priced])
        costs = np.array([self._plan.budget.cost(price) for _, price in priced])
        left = np.array([self._left(each.rung, *of) for each, of in zip(candidates, priced, strict=True)])
        headroom = _HEADROOMS[len(self._asked) % len(_HEADROOMS)]
        return candidates[int(np.argmax(known.expected_gains(wanted, costs, headroom) / (left * costs)))]

    def _left(self, rung: int, schedule: Schedule, price: Price) -> float:
        """The part of a schedule's cost on all prompts that is left to run.

        Args:
            rung: Where it starts; on the prompts of those below it was scored.
            schedule: Its first stages are kept on the prompts that trials ran which begin with them.
            price: Of the schedule.
        """
        prompts, done = self._plan.rungs[-1], self._plan.scored_before(rung)
        kept = [self._begun.get(begun, 0) for begun in beginnings(schedule)]
        left = (
            stage.tflops * (prompts - max(done, on)) for stage, on in zip(price.stages, [*kept, 0], strict=True)
        )
        return sum(left) / (prompts * price.tflops)

    def _complete(self) -> list[optuna.trial.FrozenTrial]:
        import optuna

        return self._study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))

    def _describe(self, trial: optuna.Trial, proposal: Proposal) -> None:
        price = self._plan.price(proposal.schedule)
        for name, value in {
            "label": proposal.label,
            "schedule": proposal.schedule.model_dump(mode="json"),
            "prompts": self._plan.rungs[proposal.rung],
            "continues": proposal.continues,
            "tflops": price.tflops,
            "cost": self._plan.budget.cost(price),
            "nfe": price.nfe,
        }.items():
            trial.set_user_attr(name, value)
        self._features[trial.number] = features(proposal.schedule, price)


def _seed(study_seed: int, of: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{study_seed}/{of}".encode()).digest()[:4], "big")
