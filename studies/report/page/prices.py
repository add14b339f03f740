"""What the schedules of a study cost, without the rest of its plan."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from tuner import models
from tuner.budget import Budget, parse_budget
from tuner.flops import Price, price
from tuner.latency import LatencyTable

if TYPE_CHECKING:
    from studies.records.study_folder import StudyFolder
    from tuner.models import Blueprint, Size
    from tuner.schedule import Schedule


@dataclass(frozen=True)
class Prices:
    """Prices schedules as their study did.

    Attributes:
        study: The study.
        blueprint: Its model, with its options applied.
        size: Output (height, width) in pixels.
    """

    study: StudyFolder
    blueprint: Blueprint
    size: Size

    @cached_property
    def baseline(self) -> Price:
        """The baseline's price."""
        return self.of(self.study.baseline)

    @cached_property
    def budget(self) -> Budget:
        """The study's limits per image."""
        table = self.study.identity.get("latency")
        return parse_budget(
            self.study.settings.budget,
            self.baseline,
            self.blueprint,
            self.size,
            None if table is None else lambda: LatencyTable.from_dict(table),
        )

    def of(self, schedule: Schedule) -> Price:
        """Prices a schedule."""
        return price(schedule, self.blueprint, self.size)

    def seconds(self, price: Price) -> float | None:
        """Measured seconds per image; None where the budget does not depend on them."""
        return None if self.budget.time is None else self.budget.time.latency.seconds(price)


def prices(study: StudyFolder) -> Prices:
    """Finds the model of a study.

    Raises:
        UserError: If it is not to be had here.
    """
    settings = study.settings
    height, width = study.identity["size"]
    return Prices(study, models.blueprint(settings.model).with_options(settings.options), (height, width))
