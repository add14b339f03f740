"""How far the check of a search's pick on unseen prompts may go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from studies.plan.references import plain_steps_at
from tuner.flops import price
from tuner.presets import PLAIN

if TYPE_CHECKING:
    from studies.plan.prompts import PromptSets
    from studies.plan.references import Reference
    from studies.plan.settings import SearchSettings
    from tuner.budget import Budget
    from tuner.flops import Price
    from tuner.models import Blueprint, Size


class Checked(Protocol):
    """The part of a plan that decides how far the check goes."""

    @property
    def settings(self) -> SearchSettings:
        """The user's settings."""

    @property
    def prompts(self) -> PromptSets:
        """All prompts of the study."""

    @property
    def references(self) -> Sequence[Reference]:
        """The references."""

    @property
    def budget(self) -> Budget:
        """Limits per image."""

    @property
    def blueprint(self) -> Blueprint:
        """The model."""

    @property
    def size(self) -> Size:
        """Output (height, width) in pixels."""

    @property
    def baseline_price(self) -> Price:
        """Price of the baseline."""


def with_further(plan: Checked) -> PromptSets:
    """Keeps the further unseen prompts that the settings ask for and pay for; without either setting, none."""
    prompts, settings = plan.prompts, plan.settings
    if settings.check_prompts is None and settings.check_tflops is None:
        return replace(prompts, further=())
    unseen = len(prompts.held_out) + len(prompts.further)
    most = unseen if settings.check_prompts is None else min(unseen, settings.check_prompts)
    if settings.check_tflops is not None:
        most = min(most, int(settings.check_tflops / _further_tflops(plan)))
    return replace(prompts, further=prompts.further[: max(0, most - len(prompts.held_out))])


def most_check_tflops(plan: Checked) -> float:
    """Upper bound of the denoiser TFLOPs of the check.

    On the held-out prompts run the baseline, the pick, plain steps at its cost, and the best preset. All but the
    preset go on over the further prompts.
    """
    presets = any(not reference.label.startswith(PLAIN) for reference in plan.references)
    each = _further_tflops(plan)
    held_out = (each + presets * plan.budget.tflops) * len(plan.prompts.held_out)
    return held_out + each * len(plan.prompts.further)


def _further_tflops(plan: Checked) -> float:
    """Upper bound of what a further prompt costs: the baseline, the pick, and plain steps at its cost."""
    model, size = plan.blueprint, plan.size
    plain = model.plain(plain_steps_at(plan.budget.tflops, model, size), size)
    return plan.baseline_price.tflops + plan.budget.tflops + price(plain, model, size).tflops
