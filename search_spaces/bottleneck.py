"""The bottleneck space: full size, smaller, and back, as in Bottleneck Sampling (arXiv 2503.18940)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from search_spaces._staged import StagedSpace, suggest_scale

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

MOST_LEVELS = 2


class Bottleneck(StagedSpace):
    """Schedules at scales 1, a, 1 or 1, a, b, a, 1 with b <= a < 1, each solved to sigma 0.

    =================== ===============================================================================
    ``levels``          how often the size goes down, 0 to 2; 0 is plain sampling
    ``stage2.scale``    a, on the finest even grid of scales whose sizes differ
    ``stage3.scale``    the most that b may be
    =================== ===============================================================================

    If one step of every stage exceeds the budget, the innermost level is left out, again and again.
    """

    def _suggest_scales(self, trial: BaseTrial) -> list[float]:
        small = self._costs.scales[:-1]
        levels = trial.suggest_int("levels", 0, MOST_LEVELS if small else 0)
        down = [1.0]
        for level in range(levels):
            down.append(min(down[-1], suggest_scale(trial, f"stage{level + 2}.scale", small)))
        return down + down[-2::-1]

    def _without_a_stage(self, scales: list[float]) -> list[float]:
        middle = len(scales) // 2
        return scales[: middle - 1] + scales[middle + 1 :]

    def _params_of_scales(self, scales: Sequence[float]) -> dict[str, Any]:
        levels, even = divmod(len(scales) - 1, 2)
        down = list(scales[: levels + 1])
        if (
            even
            or levels > MOST_LEVELS
            or list(scales) != down + down[-2::-1]
            or down != sorted(down, reverse=True)
            or 1.0 in down[1:]
        ):
            raise ValueError(f"the scales must be 1, or 1, a, 1, or 1, a, b, a, 1, but they are {list(scales)}.")
        return {"levels": levels} | {f"stage{k}.scale": scale for k, scale in enumerate(down[1:], start=2)}
