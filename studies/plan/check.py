"""How far the check of a search's pick on unseen prompts may go."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from studies.plan.references import plain_steps_at
from tuner.flops import price

if TYPE_CHECKING:
    from studies.plan.prompts import PromptSets
    from studies.plan.settings import SearchSettings
    from tuner.models import Blueprint, Size


def with_further(prompts: PromptSets, settings: SearchSettings, each: float) -> PromptSets:
    """Keeps the further unseen prompts that the settings ask for and pay for; without either setting, none.

    Args:
        prompts: All prompts of the study.
        settings: The user's settings.
        each: What `further_tflops` returned.
    """
    if settings.check_prompts is None and settings.check_tflops is None:
        return replace(prompts, further=())
    unseen = len(prompts.held_out) + len(prompts.further)
    most = unseen if settings.check_prompts is None else min(unseen, settings.check_prompts)
    if settings.check_tflops is not None:
        most = min(most, int(settings.check_tflops / each))
    return replace(prompts, further=prompts.further[: max(0, most - len(prompts.held_out))])


def further_tflops(baseline: float, budget: float, model: Blueprint, size: Size) -> float:
    """Upper bound of what a further prompt costs: the baseline, the pick, and plain steps at its cost.

    Args:
        baseline: TFLOPs of an image of the baseline.
        budget: The most TFLOPs of an image of the pick.
        model: The model.
        size: Output (height, width) in pixels.
    """
    steps = min(model.steps, plain_steps_at(budget, model, size))
    return baseline + budget + price(model.plain(steps, size), model, size).tflops
