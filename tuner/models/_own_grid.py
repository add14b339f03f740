"""What families share whose pipelines leave the noise levels to their scheduler, whichever of three it is.

A multistep scheduler keeps its timesteps as whole numbers, rounded down, and shows them to the network; its steps
are between the levels as they are. So does a model here whose scheduler is one, at any level of any schedule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tuner.errors import UserError
from tuner.models._diffusers import PipelineBlueprint
from tuner.models._flow_match import constant_shift, flow_match_sigmas, own_lowest, refuse_other_grids
from tuner.models._schedulers import FLOW_EULER, MULTISTEP
from tuner.models.base import Size
from tuner.sigmas import shift_sigma

_TRAIN_STEPS = 1000
_HIGHEST = 1 - 1e-6  # what UniPC's scheduler has in the place of 1


@dataclass(frozen=True, kw_only=True)
class OwnGridBlueprint(PipelineBlueprint):
    """A flow model whose pipeline passes a number of steps to its scheduler, without its weights."""

    schedulers: ClassVar[tuple[str, ...]] = (FLOW_EULER, *MULTISTEP)

    def sigmas(self, steps: int, size: Size) -> tuple[float, ...]:
        """Returns the scheduler's own levels; see `Blueprint.sigmas`.

        DPM-Solver's begin at 0.999 before the shift. UniPC's begin at 1 and do not come as near to 0.
        """
        import numpy as np

        if self._kind == FLOW_EULER:
            return flow_match_sigmas(self.scheduler, steps, self.mu(steps, size), own_lowest(self.scheduler))
        refuse_other_grids(self.scheduler)
        ramp = np.linspace(1, 1 / _TRAIN_STEPS, steps + 1)  # as the schedulers have it, to the last bit
        levels = np.flip(1.0 - ramp)[:-1] if self._kind == MULTISTEP[0] else ramp[:-1]
        shift = constant_shift(self.scheduler)
        return (*(shift_sigma(level, shift) for level in levels.tolist()), 0.0)

    def start(self, sigma: float) -> float:
        """Lets a schedule start from noise alone where the scheduler does; see `Blueprint.start`."""
        first = self.sigmas(1, self.size)[0]
        if sigma == first:
            return 1.0
        try:
            return super().start(sigma)
        except UserError:
            if first == 1:
                raise
            raise UserError(
                f"{self.name} starts from noise alone, so the first sigma must be 1 or its scheduler's "
                f"{first:.9g}, but it is {sigma:.9g}; begin the first stage with 1."
            ) from None

    def asked(self, sigma: float) -> float:
        """Rounds down to a whole timestep where the scheduler does; see `PipelineBlueprint.asked`."""
        return sigma if self._kind == FLOW_EULER else int(_TRAIN_STEPS * min(sigma, _HIGHEST)) / _TRAIN_STEPS

    @property
    def _kind(self) -> str:
        return str(self.scheduler.get("_class_name", FLOW_EULER))
