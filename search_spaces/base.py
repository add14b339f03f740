"""The interface of search spaces: a trial in, a schedule within the budget out, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from tuner.schedule import Schedule

if TYPE_CHECKING:
    from optuna.trial import BaseTrial


Carries: TypeAlias = Callable[[Schedule], bool]
"""Whether a runtime carries a schedule exactly."""


@runtime_checkable
class SearchSpace(Protocol):
    """A set of schedules within a budget, and the parameters that name each of them.

    A space is built as ``ClassName(blueprint, size, budget)``, one around a preset with ``preset`` as well. One
    that takes ``carries``, too, leaves out what the runtime lacks that a search is for.
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
