"""Random parameters for a search space: uniform, or near those of a known schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, TypeVar, cast

from optuna.trial import FixedTrial

T = TypeVar("T")

_MOST_CHANGES = 3  # parameters that change, besides those that depend on them
_NEAR = 0.1  # standard deviation of a moved number, relative to its range
_FAR = 0.4  # share of the changed numbers that are drawn from the whole range


class Draw(FixedTrial):
    """An Optuna trial whose parameters are random.

    Args:
        rng: Decides every parameter.
        near: Parameters to stay close to. One to three of them change: a number mostly moves a little, a choice
            becomes another one. Parameters that are missing here are drawn. None to draw all.

    Attributes:
        drawn: The parameters by name.
    """

    def __init__(self, rng: Random, near: Mapping[str, Any] | None = None):
        super().__init__({})
        self._rng = rng
        self._near = near or {}
        names = sorted(self._near)
        self._changed = set(rng.sample(names, min(len(names), rng.randint(1, _MOST_CHANGES))))
        self.drawn: dict[str, Any] = {}

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """See ``optuna.Trial.suggest_int``."""
        if log:
            return self._keep(name, round(self._float(name, low, high, log=True)))
        return self._keep(name, low + step * self._place(name, (high - low) // step, low, step))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """See ``optuna.Trial.suggest_float``."""
        if step is not None:
            places = math.floor((high - low) / step * (1 + 1e-9))
            return self._keep(name, low + step * self._place(name, places, low, step))
        return self._keep(name, self._float(name, low, high, log))

    def suggest_categorical(self, name: str, choices: Sequence[T]) -> T:
        """See ``optuna.Trial.suggest_categorical``."""
        if name in self._near and name not in self._changed:
            return self._keep(name, cast(T, self._near[name]))
        others = [choice for choice in choices if name not in self._near or choice != self._near[name]]
        return self._keep(name, self._rng.choice(others or list(choices)))

    def _float(self, name: str, low: float, high: float, log: bool) -> float:
        if name in self._near and name not in self._changed:
            return float(min(max(self._near[name], low), high))
        to, back = (math.log, math.exp) if log else (float, float)
        first, last = to(low), to(high)
        if name in self._near and self._rng.random() >= _FAR:
            value = to(self._near[name]) + self._rng.gauss(0, _NEAR * (last - first))
        else:
            value = self._rng.uniform(first, last)
        return min(max(back(value), low), high)

    def _place(self, name: str, last: int, low: float, step: float) -> int:
        """Chooses one of evenly spaced values, counted from 0; a value that moves becomes another one."""
        if name not in self._near:
            return self._rng.randint(0, last)
        place: int = round((self._near[name] - low) / step)
        if name in self._changed:
            if self._rng.random() < _FAR:
                return self._rng.randint(0, last)
            move = self._rng.gauss(0, _NEAR * last)
            place += int(math.copysign(max(1, round(abs(move))), move))
        return min(max(place, 0), last)

    def _keep(self, name: str, value: T) -> T:
        self.drawn[name] = value
        return value
