"""The free space: everything that a schedule can be, within the budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from search_spaces._staged import StagedSpace, suggest_scale

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

MOST_STAGES = 5


class Free(StagedSpace):
    """Schedules of one to five stages of any sizes, with every option of `StagedSpace`.

    =================== ===============================================================================
    ``stages``          how many, 1 to 5, as far as one step of each is affordable
    ``stageK.scale``    on the finest even grid of scales whose sizes differ; 1 for the last stage
    =================== ===============================================================================

    If one step of every stage exceeds the budget, the first stage is left out, again and again.
    """

    options = frozenset({"early", "reuse", "cache"})

    def _suggest_scales(self, trial: BaseTrial) -> list[float]:
        count = trial.suggest_int("stages", 1, min(MOST_STAGES, self._costs.most_stages))
        return [suggest_scale(trial, f"stage{k}.scale", self._costs.scales) for k in range(1, count)] + [1.0]

    def _without_a_stage(self, scales: list[float]) -> list[float]:
        return scales[1:]

    def _params_of_scales(self, scales: Sequence[float]) -> dict[str, Any]:
        if len(scales) > MOST_STAGES:
            raise ValueError(f"the number of stages must lie in [1, {MOST_STAGES}], but it is {len(scales)}.")
        return {"stages": len(scales)} | {f"stage{k}.scale": scale for k, scale in enumerate(scales[:-1], start=1)}
