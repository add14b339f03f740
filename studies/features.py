"""What all schedules have in common: numbers that tell how alike two of them are, whatever space they are from.

Spaces have parameters of their own, which come and go with the number of stages. Schedules of any space can be
compared by what they do at each noise level: how large the image is when the level is passed for the last time,
and how finely. Two schedules that are alike in this score alike, so a few dozen results tell much of the others.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

from tuner.schedule import RESAMPLE_MODES
from tuner.solvers import SOLVERS, call_sigmas

if TYPE_CHECKING:
    from tuner.flops import Price
    from tuner.schedule import Schedule

_LEVELS = (0.97, 0.9, 0.8, 0.65, 0.5, 0.35, 0.2, 0.08)
_SCALE_WEIGHT = 3.0  # twice the size weighs like steps that are a twentieth as long
_FINENESS_WEIGHT = 0.5
_SOLVER_WEIGHT = 0.7
_CACHE_WEIGHT = 2.0
_RESAMPLE_WEIGHT = 1.0
_EARLY_WEIGHT = 2.0
_CACHES = ("first_block", "taylorseer", "mag", "pab")


def features(schedule: Schedule, price: Price) -> list[float]:
    """Describes a schedule: its cost, its rules, how stages meet, and scale and fineness at some noise levels.

    All are logarithms or the like, so that equal distances are about equally much. A step that reuses the last
    velocity only prolongs the one before it, so the steps that count are those between network calls.

    Args:
        schedule: What is described.
        price: Its cost.
    """
    described = [math.log(price.tflops), math.log(price.nfe), math.log(len(schedule.stages))]
    described += [_SOLVER_WEIGHT * (schedule.solver == name) for name in SOLVERS]
    cache = schedule.cache and schedule.cache.kind
    described += [_CACHE_WEIGHT * (cache == kind) for kind in _CACHES]
    modes = {
        after.resample for before, after in itertools.pairwise(schedule.stages) if before.scale != after.scale
    }
    described += [_RESAMPLE_WEIGHT * (mode in modes) for mode in RESAMPLE_MODES]
    described.append(_EARLY_WEIGHT * max(stage.sigmas[-1] for stage in schedule.stages))
    for level in _LEVELS:
        scale, length = _last_passed(schedule, min(level, schedule.stages[0].sigmas[0]))
        described += [_SCALE_WEIGHT * scale, -_FINENESS_WEIGHT * math.log(length)]
    return described


def _last_passed(schedule: Schedule, level: float) -> tuple[float, float]:
    """The scale at which a level is passed for the last time, and the distance between the calls around it."""
    stage = next(stage for stage in reversed(schedule.stages) if stage.sigmas[-1] < level <= stage.sigmas[0])
    called = sorted({*call_sigmas(schedule.solver, stage.sigmas, stage.reuse), stage.sigmas[-1]}, reverse=True)
    below = next(k for k, sigma in enumerate(called) if sigma < level)
    return stage.scale, called[below - 1] - called[below]
