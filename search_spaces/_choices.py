"""What a space may choose from: all that it has, or what the runtime carries that a search is for.

A space asks for one option at a time, on short schedules, before it begins. What a runtime cannot carry is then
never drawn, but for combinations of options that it carries one by one.
"""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces._solvers import SOLVERS
from search_spaces.base import Carries
from tuner.feature_cache import FeatureCache
from tuner.schedule import RESAMPLE_MODES, Kernel, Schedule, Stage

_LEVELS = (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)
_CLEAN, _NOISY = Stage(sigmas=(1.0, 0.0)), Stage(sigmas=(1.0, 0.5))


@dataclass(frozen=True)
class Choices:
    """Answers whether a runtime carries an option.

    Args:
        carries: Whether the runtime carries a schedule.
    """

    carries: Carries

    def solvers(self) -> tuple[str, ...]:
        """Names the step rules."""
        return tuple(name for name in SOLVERS if self._carries(Stage(sigmas=_LEVELS), solver=name))

    def kernels(self, scale: float) -> tuple[Kernel, ...]:
        """Names the kernels that enlarge a latent from this scale to the output's."""
        small = _CLEAN.model_copy(update={"scale": scale})
        return tuple(
            kernel for kernel in RESAMPLE_MODES if self._carries(small, Stage(sigmas=(0.5, 0.0), resample=kernel))
        )

    def early_ends(self) -> bool:
        """Whether a stage may end above sigma 0, and the next one start higher."""
        return self._carries(_NOISY, Stage(sigmas=(0.7, 0.0)))

    def reuse(self) -> bool:
        """Whether a step may follow the velocity of the one before."""
        return self._carries(Stage(sigmas=_LEVELS, reuse=(2,)))

    def cache(self, cache: FeatureCache) -> bool:
        """Whether it has a feature cache of this kind."""
        return self._carries(Stage(sigmas=_LEVELS), cache=cache)

    def guidance(self, scale: float) -> bool:
        """Whether a stage may have a guidance scale of its own."""
        return self._carries(Stage(sigmas=_LEVELS, guidance=scale))

    def intervals(self) -> bool:
        """Whether calls of a stage may go without guidance."""
        return self._carries(Stage(sigmas=_LEVELS, guide=(0.9, 0.3)))

    def _carries(self, *stages: Stage, solver: str = "euler", cache: FeatureCache | None = None) -> bool:
        return self.carries(Schedule(stages=stages, solver=solver, cache=cache))


def anything(schedule: Schedule) -> bool:
    """Carries every schedule: what `tuner` itself does."""
    return True
