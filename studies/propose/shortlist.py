"""An Optuna storage that keeps the cost of a proposal bounded: it lists the best and the latest trials."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING

import numpy as np
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from objectives.base import loss_sign

if TYPE_CHECKING:
    from objectives.base import Direction


class Shortlist(InMemoryStorage):
    """Keeps one study in memory, and lists at most so many of its complete trials.

    The time of a prediction grows with the number of results that it is made from. Those on the Pareto front are
    therefore all listed, up to half of the places, the latest first; the latest of the others fill the places that
    are left. A trial that continues another stands for both; what the other took off the front does not return.
    What is listed depends on the trials and their order alone.

    Args:
        places: Complete trials that are listed.
        directions: Of the study's values.
    """

    def __init__(self, places: int, directions: Sequence[Direction]):
        super().__init__()
        self._places = places
        self._signs = [loss_sign(direction) for direction in directions]
        self._front: list[tuple[int, tuple[float, ...]]] = []  # number and losses
        self._complete: list[int] = []  # numbers

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Sets the state of a trial; one that is complete takes its place on the list."""
        updated = super().set_trial_state_values(trial_id, state, values)
        if state == TrialState.COMPLETE and values is not None:
            trial = self.get_trial(trial_id)
            number = trial.number
            self._forget(trial.user_attrs.get("continues"))
            self._complete.append(number)
            self._compare(number, tuple(sign * value for sign, value in zip(self._signs, values, strict=True)))
        return updated

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Lists trials: all that are not complete, and of the others those on the list."""
        trials = super().get_all_trials(study_id, deepcopy=deepcopy, states=states)
        listed = {number for number, _ in self._front[-(self._places // 2) :]}
        others = (number for number in reversed(self._complete) if number not in listed)
        listed |= {number for number, _ in zip(others, range(self._places - len(listed)), strict=False)}
        return [trial for trial in trials if trial.state != TrialState.COMPLETE or trial.number in listed]

    def _forget(self, number: int | None) -> None:
        """Takes a trial off the list whose schedule was scored on more prompts since."""
        if number is not None:
            self._complete.remove(number)
            self._front = [member for member in self._front if member[0] != number]

    def _compare(self, number: int, losses: tuple[float, ...]) -> None:
        """Puts a trial on the front unless it is dominated there, and takes off it what it dominates."""
        known = np.array([of_front for _, of_front in self._front]).reshape(-1, len(losses))
        if np.any(np.all(known <= losses, axis=1)):
            return
        dominated = np.all(np.less_equal(losses, known), axis=1)
        self._front = [member for member, worse in zip(self._front, dominated, strict=True) if not worse]
        self._front.append((number, losses))
