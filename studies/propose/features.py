"""Features of schedules, which the surrogate compares schedules of all spaces by.

Each space has its own parameters, and their number depends on the number of stages. Features are the same for
all schedules: their cost, their solvers, their effect on Gaussian data (`studies.propose.gaussian_data`), and
the scale at which they pass each noise level for the last time. Schedules with similar features have similar
scores.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import TYPE_CHECKING

from studies.propose.gaussian_data import BANDS, distances
from studies.propose.improvement import Array
from tuner.schedule import RESAMPLE_MODES
from tuner.solvers import available

if TYPE_CHECKING:
    from tuner.flops import Price
    from tuner.schedule import Schedule

_CACHES = ("first_block", "taylorseer", "mag", "pab")

DISTANCES = slice(-len(BANDS), None)
"""The features that are distances to Gaussian data; with any model, scores get worse as they grow."""

CACHES = slice(DISTANCES.start - len(_CACHES), DISTANCES.start)
"""The features that tell the feature cache; all are 0 without one."""

_PASSES = 3 + len(available())  # the feature that is network passes per call

_LEVELS = (0.97, 0.9, 0.8, 0.65, 0.5, 0.35, 0.2, 0.08)
_SCALE_WEIGHT = 3.0
_DISTANCE_WEIGHT = 6.0
_SOLVER_WEIGHT = 0.7
_GUIDANCE_WEIGHT = 1.0
_CACHE_WEIGHT = 2.0
_RESAMPLE_WEIGHT = 1.0
_EARLY_WEIGHT = 2.0


@functools.lru_cache(maxsize=1024)  # every proposal asks for those of the trials again
def features(schedule: Schedule, price: Price) -> tuple[float, ...]:
    """Computes the features of a schedule, scaled so that equal differences matter about equally.

    Args:
        schedule: The schedule.
        price: Its price.
    """
    return described(schedule, price.tflops, price.nfe)


def described(schedule: Schedule, tflops: float, passes: float) -> tuple[float, ...]:
    """Computes `features` of a schedule from its TFLOPs and its network passes in any unit.

    Args:
        schedule: The schedule.
        tflops: Its TFLOPs, relative or not.
        passes: Its network passes, relative or not.
    """
    described = [math.log(tflops), math.log(passes), math.log(len(schedule.stages))]
    described += [_SOLVER_WEIGHT * part for part in _solver_parts(schedule)]
    described += [_GUIDANCE_WEIGHT * value for value in _guidance(schedule, passes)]
    modes = {
        after.resample for before, after in itertools.pairwise(schedule.stages) if before.scale != after.scale
    }
    described += [_RESAMPLE_WEIGHT * (mode in modes) for mode in RESAMPLE_MODES]
    described.append(_EARLY_WEIGHT * max(stage.sigmas[-1] for stage in schedule.stages))
    described += [_SCALE_WEIGHT * _last_scale(schedule, level) for level in _LEVELS]
    cache = schedule.cache and schedule.cache.kind
    described += [_CACHE_WEIGHT * (cache == kind) for kind in _CACHES]
    return *described, *(_DISTANCE_WEIGHT * distances(schedule))


def _solver_parts(schedule: Schedule) -> list[float]:
    """Returns the share of the steps that each solver makes."""
    made = dict.fromkeys(available(), 0)
    for index, stage in enumerate(schedule.stages):
        made[schedule.solver_of(index)] += stage.steps
    return [steps / schedule.steps for steps in made.values()]


def _guidance(schedule: Schedule, passes: float) -> list[float]:
    """Returns network passes per call, and the share and mean log of the steps' own guidance scales."""
    own = [(stage.steps, stage.guidance) for stage in schedule.stages if stage.guidance is not None]
    steps = sum(count for count, _ in own)
    mean = sum(count * math.log1p(scale) for count, scale in own) / steps if own else 0.0
    return [passes / schedule.calls, steps / schedule.steps, mean]


def relative(found: Array, baseline: Price) -> Array:
    """Turns features of this study, (n, features), into those in units of a full-size call of its model.

    They are comparable between models and sizes: a step of another model costs another number of TFLOPs, and may
    take two passes.
    """
    calls = sum(stage.calls for stage in baseline.stages)
    per_call = baseline.nfe / calls
    changed = found.copy()
    changed[:, 0] -= math.log(baseline.tflops / calls)
    changed[:, 1] -= math.log(per_call)
    changed[:, _PASSES] /= per_call
    return changed


def _last_scale(schedule: Schedule, level: float) -> float:
    """Returns the scale at which a schedule passes a noise level for the last time."""
    level = min(level, schedule.stages[0].sigmas[0])  # a model may start below it
    return next(stage.scale for stage in reversed(schedule.stages) if stage.sigmas[-1] < level <= stage.sigmas[0])
