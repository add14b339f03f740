"""Writes a schedule in a few characters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tuner.sigmas import start_and_shift

if TYPE_CHECKING:
    from collections.abc import Callable

    from tuner.schedule import Schedule, Stage


def shorthand(schedule: Schedule) -> str:
    """Writes a schedule in a few characters, each stage as steps@scale: ``8@0.5 > 6@1 dpmpp-2m``.

    A stage names its solver unless it is Euler's, the number of steps that reuse a velocity, and its guidance.
    """
    return " > ".join(_stage(stage) for stage in schedule.resolved)


def distinct_shorthands(schedules: Sequence[Schedule]) -> list[str]:
    """Writes schedules in a few characters, and adds what tells those apart that would look equal."""
    texts = list(map(shorthand, schedules))
    for detail in _DETAILS:
        groups: dict[str, list[int]] = {}
        for index, text in enumerate(texts):
            groups.setdefault(text, []).append(index)
        for members in groups.values():
            details = [detail(schedules[index]) for index in members]
            if len(set(details)) > 1:
                for index, more in zip(members, details, strict=True):
                    texts[index] = f"{texts[index]} {more}".rstrip()
    return texts


def _stage(stage: Stage) -> str:
    text = f"{stage.steps}@{stage.scale:.3g}"
    if stage.solver != "euler":
        text += f" {stage.solver}"
    if stage.reuse:
        text += f" -{len(stage.reuse)}"
    if stage.guidance is not None:
        text += f" g{stage.guidance:.3g}"
    if stage.guide is not None:
        text += f" in [{stage.guide[1]:.2g}, {stage.guide[0]:.2g}]"
    return text


def _starts(schedule: Schedule) -> str:
    later = [f"{stage.sigmas[0]:.2g}" for stage in schedule.stages[1:]]
    return f"from {', '.join(later)}" if later else ""


def _shifts(schedule: Schedule) -> str:
    cuts = [start_and_shift(stage.sigmas) for stage in schedule.stages]
    return "shift " + ", ".join("-" if cut is None else f"{cut[1]:.2g}" for cut in cuts)


def _levels(schedule: Schedule) -> str:
    return "at " + ", ".join(f"{sigma:.2g}" for stage in schedule.stages for sigma in stage.sigmas[1:-1])


def _reuse(schedule: Schedule) -> str:
    return "reuse " + ", ".join("+".join(map(str, stage.reuse)) or "-" for stage in schedule.stages)


def _resampling(schedule: Schedule) -> str:
    return ", ".join(stage.upscaler or stage.resample for stage in schedule.stages[1:])


_DETAILS: tuple[Callable[[Schedule], str], ...] = (
    lambda schedule: "" if schedule.cache is None else schedule.cache.kind,
    _starts,
    _shifts,
    _reuse,
    _resampling,
    _levels,
    lambda schedule: f"#{schedule.content_hash[:6]}",
)
