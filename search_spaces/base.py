"""What every search space has to offer: a trial in, a schedule that fits the budget out, and the way back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from tuner.schedule import Schedule

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

    from tuner.flops import Price
    from tuner.latency import LatencyTable

ROUNDING = 1e-9
"""Relative slack of comparisons with a limit: 20 of 50 steps cost 40 % of the baseline only up to rounding."""


@dataclass(frozen=True)
class TimeLimit:
    """Seconds that one image may take.

    Attributes:
        seconds: The limit.
        latency: How long network calls and all else take, as measured.
    """

    seconds: float
    latency: LatencyTable

    def allows(self, price: Price) -> bool:
        """Whether a schedule of this price fits."""
        return self.latency.seconds(price) <= self.seconds * (1 + ROUNDING)


@dataclass(frozen=True)
class Budget:
    """What one image may cost.

    Attributes:
        tflops: Limit in TFLOPs per image.
        nfe: Limit in network forward passes per image; None for no such limit.
        time: Limit in measured seconds per image; None for no such limit.
    """

    tflops: float
    nfe: int | None = None
    time: TimeLimit | None = None

    @property
    def limit(self) -> float:
        """The most that an image may cost, as ``cost`` counts it."""
        return self.tflops if self.time is None else self.time.seconds

    def cost(self, price: Price) -> float:
        """What a search makes as small as it can: measured seconds where they are limited, TFLOPs elsewhere."""
        return price.tflops if self.time is None else self.time.latency.seconds(price)

    def allows(self, price: Price) -> bool:
        """Whether a schedule of this price fits."""
        return (
            price.tflops <= self.tflops * (1 + ROUNDING)
            and (self.nfe is None or price.nfe <= self.nfe)
            and (self.time is None or self.time.allows(price))
        )


@runtime_checkable
class SearchSpace(Protocol):
    """A set of schedules within a budget, and the parameters that name each of them.

    A space is built as ``ClassName(blueprint, size, budget)``, one around a preset with ``preset`` as well.
    """

    def suggest(self, trial: BaseTrial) -> Schedule:
        """Asks the trial for parameters and turns them into a schedule.

        Args:
            trial: Optuna's; a parameter without effect on the schedule is not asked for.

        Returns:
            A schedule that the budget allows, whatever the parameters are.
        """
        ...

    def params_of(self, schedule: Schedule) -> dict[str, Any]:
        """Finds the parameters of a schedule, to be enqueued in a study: the inverse of ``suggest``.

        Returns:
            Parameters from which ``suggest`` makes this schedule, sigmas equal to within 1e-7.

        Raises:
            ValueError: If the schedule lies outside the space or its budget; the message says why.
        """
        ...
