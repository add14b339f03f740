"""The errors of a schedule on Gaussian data, which need no network.

The exact velocity of Gaussian data is linear in every frequency. The standard deviation that a schedule leaves
in each frequency therefore has a formula. It is too small after too few steps, and nearly 0 where the stages
that resolve the frequency start too late. A schedule that fails on Gaussian data mostly fails with networks,
too.
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
"""Bands: variance of the data relative to the noise, and frequency relative to the highest one at full size."""

_VARIANCES, _FREQUENCIES = np.array(BANDS).T


def distances(schedule: Schedule) -> Array:
    """Computes relative squared 2-Wasserstein distances between bands of the data and of a schedule's output.

    The distance of two normal distributions with mean 0 is the difference of their standard deviations (Dowson and
    Landau, 1982). Feature caches and amplitudes are ignored.

    Returns:
        A distance for each band, (8,): 0 where the schedule is exact, 1 where the output lacks the band.
    """
    squared: Array = (1 - _spreads(schedule) / np.sqrt(_VARIANCES)) ** 2
    return squared


def _spreads(schedule: Schedule) -> Array:
    """Computes the standard deviation of each band of a schedule's output, (8,)."""
    entered: Array = np.ones(len(BANDS))  # unit noise
    spread = entered
    for index, stage in enumerate(schedule.stages):
        if index > 0:
            entered = _entered(spread, schedule.stages[index - 1], stage)
        factor, fresh = _solved(stage, schedule.solver_of(index))
        spread = np.hypot(factor * entered, fresh)
    return spread


@functools.lru_cache(maxsize=1024)  # similar schedules share stages
def _solved(stage: Stage, solver: str) -> tuple[Array, Array]:
    """Computes each band's factor over a stage, and the standard deviation that the solver's own noise adds.

    Both are 0 if the stage's size does not resolve the frequency. The flow is linear, so the latent and the
    noise of each step are solved side by side, one per row.
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

    Resizing kernels are assumed to keep every frequency. A coefficient of an orthonormal basis grows with the side
    of the image.
    """
    level, target, ratio = before.sigmas[-1], stage.sigmas[0], stage.scale / before.scale
    if stage.resample == "dct":
        target = aligned_sigma(level, ratio)
        return np.where(np.less_equal(_FREQUENCIES, before.scale), target / level * spread, target)
    kept, added = renoising(level, target)
    entered: Array = np.hypot(kept * ratio * spread, added)
    return entered
