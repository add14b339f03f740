"""The trials that predictions are made from: the best and the latest ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import TYPE_CHECKING

from studies.judge.pareto import nondominated

if TYPE_CHECKING:
    from studies.propose.trial import Trial

_PLACES = 100


def shortlist(trials: Sequence[Trial], places: int = _PLACES) -> list[Trial]:
    """Lists at most so many of the trials that succeeded, in order.

    The time of a prediction grows with the number of trials behind it. The members of the Pareto front take up to
    half of the places, the latest ones first. The latest other trials take the rest. A promoted trial replaces the
    trial that it continues. A trial that has left the front does not return when the trial that dominated it is
    replaced.

    Args:
        trials: All trials that the next one may depend on.
        places: The largest number of trials.
    """
    succeeded = [trial for trial in trials if trial.succeeded]
    replaced = {trial.continues for trial in succeeded}
    current = [trial for trial in succeeded if trial.number not in replaced]
    if len(current) <= places:
        return current
    listed = {trial.number for trial in _front.of(succeeded)[-(places // 2) :]}
    others = [trial.number for trial in current if trial.number not in listed]
    listed.update(others[len(listed) - places :])
    return [trial for trial in current if trial.number in listed]


@dataclass
class _GrowingFront:
    """The Pareto front of estimated losses and cost; of equal trials, the first.

    A search asks for it before every proposal. So the front of the trials that it asked for last is kept, and only
    new trials are added to it.
    """

    _seen: list[Trial] = field(default_factory=list)
    _members: list[Trial] = field(default_factory=list)

    def of(self, trials: Sequence[Trial]) -> list[Trial]:
        """Returns the front of trials that succeeded, in order."""
        known = len(self._seen)
        if known > len(trials) or any(a is not b for a, b in zip(self._seen, trials, strict=False)):
            self._seen, self._members, known = [], [], 0
        for trial in trials[known:]:
            self._add(trial)
        self._seen += trials[known:]
        self._members = unbeaten(self._members)
        return self._members

    def _add(self, trial: Trial) -> None:
        if trial.continues is not None and any(one.number == trial.continues for one in self._members):
            self._members = [one for one in unbeaten(self._members) if one.number != trial.continues]
        self._members.append(trial)


def unbeaten(members: Sequence[Trial]) -> list[Trial]:
    """Keeps the trials that no other one beats in estimated losses and cost; of equal trials, the first."""
    losses = [(*trial.result.losses, trial.cost) for trial in members]
    return list(compress(members, nondominated(losses, keep_equal=False)))


_front = _GrowingFront()
