"""The progressive space: sizes that only grow, as in scale-wise sampling."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from search_spaces._staged import StagedSpace, suggest_scale

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

MOST_STAGES = 5


class Progressive(StagedSpace):
    """Schedules of one to five stages, none smaller than the one before.

    =================== ===============================================================================
    ``stages``          how many, 1 to 5, as far as one step of each is affordable
    ``stageK.scale``    the least scale of stage K, which is at least that of stage K - 1; 1 for the last
    =================== ===============================================================================

    A stage may end above sigma 0 and the next go on from there, as methods do that switch the resolution in the
    middle of the trajectory. If one step of every stage exceeds the budget, the first stage is left out, again
    and again.
    """

    options = frozenset({"early"})

    def _suggest_scales(self, trial: BaseTrial) -> list[float]:
        count = trial.suggest_int("stages", 1, min(MOST_STAGES, self._costs.most_stages))
        least = (suggest_scale(trial, f"stage{k}.scale", self._costs.scales) for k in range(1, count))
        return [*itertools.accumulate(least, max), 1.0]

    def _without_a_stage(self, scales: list[float]) -> list[float]:
        return scales[1:]

    def _params_of_scales(self, scales: Sequence[float]) -> dict[str, Any]:
        if len(scales) > MOST_STAGES:
            raise ValueError(f"the number of stages must lie in [1, {MOST_STAGES}], but it is {len(scales)}.")
        if list(scales) != sorted(scales):
            raise ValueError(f"no stage may be smaller than the one before it, but the scales are {list(scales)}.")
        return {"stages": len(scales)} | {f"stage{k}.scale": scale for k, scale in enumerate(scales[:-1], start=1)}
