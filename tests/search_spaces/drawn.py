"""A trial whose parameters Hypothesis draws, edges of every range included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from optuna.trial import FixedTrial


class DrawnTrial(FixedTrial):
    def __init__(self, data: st.DataObject) -> None:
        super().__init__({})
        self.drawn: dict[str, Any] = {}
        self._data = data

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return self._keep(name, st.integers(low, high))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        if step is None:
            return self._keep(name, st.floats(low, high))
        return self._keep(name, st.integers(0, round((high - low) / step)).map(lambda n: low + n * step))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._keep(name, st.sampled_from(choices))

    def _keep(self, name: str, strategy: st.SearchStrategy[Any]) -> Any:
        assert name not in self.drawn, "a parameter must be asked for once"
        self.drawn[name] = self._data.draw(strategy, name)
        return self.drawn[name]
