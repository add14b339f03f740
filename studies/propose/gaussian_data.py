"""What a schedule makes of Gaussian data: the part of its errors that is known without a network.

The exact velocity of Gaussian data is linear in every frequency. A schedule therefore leaves each with a standard
deviation that can be computed: too small a one after too few steps, next to none where the stages that have the
frequency start too late. A schedule that fails here mostly fails with networks, too.
"""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING

import numpy as np

from studies.propose.improvement import Array
from tuner.sigmas import aligned_sigma, renoising
from tuner.solvers import draws_noise, reusing, solve

if TYPE_CHECKING:
    from tuner.schedule import Schedule, Stage

BANDS = tuple(itertools.product((30.0, 1.0), (0.2, 0.45, 0.7, 0.95)))
"""Variance of the data, in units of the noise's, and frequency, as a part of the highest one of the full size."""

_VARIANCES, _FREQUENCIES = np.array(BANDS).T


def distances(schedule: Schedule) -> Array:
    """Squared 2-Wasserstein distances between what a schedule makes of some bands, and those, relative to those.

    Two normal distributions of mean 0 are as far apart as their standard deviations (Dowson and Landau, 1982).
    Feature caches and amplitudes are not seen.

    Returns:
        One for each band, (8,): 0 where the schedule is exact, 1 where nothing is left of the band.
    """
    squared: Array = (1 - _spreads(schedule) / np.sqrt(_VARIANCES)) ** 2
    return squared


def _spreads(schedule: Schedule) -> Array:
    """Standard deviations of what a schedule makes of the bands."""
    entered: Array = np.ones(len(BANDS))  # unit noise
    spread = entered
    for index, stage in enumerate(schedule.stages):
        if index > 0:
            entered = _entered(spread, schedule.stages[index - 1], stage)
        factor, fresh = _solved(stage, schedule.solver_of(index))
        spread = np.hypot(factor * entered, fresh)
    return spread


@functools.lru_cache(maxsize=4096)  # schedules near each other have stages in common
def _solved(stage: Stage, solver: str) -> tuple[Array, Array]:
    """What solving a stage's flow multiplies every band by, and the deviation that the solver's own noise adds.

    Both are 0 if the stage's size does not have the frequency. All is linear, so that the latent and the noise of
    each step are solved side by side, one row for each.
    """
    present = np.less_equal(_FREQUENCIES, stage.scale) * 1.0
    variances = np.where(present, stage.scale**2 * _VARIANCES, 1.0)
    data, noise = 1 - np.array(stage.sigmas)[:, None], np.array(stage.sigmas)[:, None]
    velocities = (noise - data * variances) / (data**2 * variances + noise**2)  # of a latent of 1
    by_level = dict(zip(stage.sigmas, velocities, strict=True))
    rows = np.eye(1 + stage.steps * draws_noise(solver))[:, :, None] * present

    def velocity(x: Array, sigma: float) -> Array:
        predicted: Array = by_level[sigma] * x
        return predicted

    calls = reusing(velocity, stage.sigmas, stage.reuse)
    made = solve(solver, calls, rows[0], stage.sigmas, lambda step: rows[1 + step])
    fresh: Array = np.sqrt((made[1:] ** 2).sum(axis=0))
    return made[0], fresh


def _entered(spread: Array, before: Stage, stage: Stage) -> Array:
    """Resizes and renoises, as `tuner.sampling.stage_start` does.

    Kernels are taken to keep every frequency there is. A coefficient of an orthonormal basis grows with the side
    of the image.
    """
    level, target, ratio = before.sigmas[-1], stage.sigmas[0], stage.scale / before.scale
    if stage.resample == "dct":
        target = aligned_sigma(level, ratio)
        return np.where(np.less_equal(_FREQUENCIES, before.scale), target / level * spread, target)
    kept, added = renoising(level, target)
    entered: Array = np.hypot(kept * ratio * spread, added)
    return entered
