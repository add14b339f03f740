"""Parameters drawn for a space without a study: anywhere, or near those of a schedule that is known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from optuna.trial import FixedTrial

T = TypeVar("T")

_NEAR = 0.1  # standard deviation of a moved number, as a part of its range
_KEPT = 0.85  # share of the parameters that stay


class Draw(FixedTrial):
    """Answers a space's questions as a trial does, at random.

    Args:
        rng: Decides every answer.
        near: Parameters to stay close to: most are kept, other numbers move a little or, like choices, are drawn
            anew. None to draw all.

    Attributes:
        drawn: The answers by name.
    """

    def __init__(self, rng: np.random.Generator, near: Mapping[str, Any] | None = None):
        super().__init__({})
        self._rng = rng
        self._near = near or {}
        self.drawn: dict[str, Any] = {}

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """See ``optuna.Trial.suggest_int``."""
        if log:
            return round(self.suggest_float(name, low, high, log=True))
        return self._keep(name, low + step * self._step_number(name, 0, (high - low) // step, low, step))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """See ``optuna.Trial.suggest_float``."""
        if step is not None:
            count = math.floor((high - low) / step * (1 + 1e-9))
            return self._keep(name, low + step * self._step_number(name, 0, count, low, step))
        to, back = (math.log, math.exp) if log else (float, float)
        first, last = to(low), to(high)
        value = self._rng.uniform(first, last)
        if name in self._near:
            value = self._moved(to(self._near[name]), first, last, value)
        return self._keep(name, min(max(back(value), low), high))

    def suggest_categorical(self, name: str, choices: Sequence[T]) -> T:
        """See ``optuna.Trial.suggest_categorical``."""
        drawn = choices[int(self._rng.integers(len(choices)))]
        kept = name in self._near and self._rng.random() < _KEPT
        return self._keep(name, self._near[name] if kept else drawn)

    def _step_number(self, name: str, first: int, last: int, low: float, step: float) -> int:
        """Draws which of several evenly spaced values; a moved one moves by one at least."""
        drawn = int(self._rng.integers(first, last + 1))
        if name not in self._near:
            return drawn
        now = round((self._near[name] - low) / step)
        moved = self._moved(now, first, last, drawn)
        if moved != now:
            moved = now + math.copysign(max(1, round(abs(moved - now))), moved - now)
        return int(min(max(moved, first), last))

    def _moved(self, value: float, first: float, last: float, drawn: float) -> float:
        """Keeps a number, or moves it a little, or, one time in five, takes the one that was drawn."""
        if self._rng.random() < _KEPT:
            return value
        if self._rng.random() < 0.2:
            return drawn
        return min(max(value + self._rng.normal(0, _NEAR * (last - first)), first), last)

    def _keep(self, name: str, value: T) -> T:
        self.drawn[name] = value
        return value
