"""The errors of a schedule on Gaussian data, which need no network.

The exact velocity of Gaussian data is linear in every frequency. The standard deviation that a schedule leaves
in each frequency therefore has a formula. It is too small after too few steps, and nearly 0 where the stages
that resolve the frequency start too late. A schedule that fails on Gaussian data mostly fails with networks,
too.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from studies.propose.improvement import Array
from tuner.sigmas import aligned_sigma, renoising
from tuner.solvers import draws_noise, reusing, solve

if TYPE_CHECKING:
    from tuner.schedule import Schedule, Stage

BANDS = tuple(itertools.product((30.0, 1.0), (0.2, 0.45, 0.7, 0.95)))
"""Bands: variance of the data relative to the noise, and frequency relative to the highest one at full size."""

_VARIANCES, _FREQUENCIES = np.array(BANDS).T

Solved: TypeAlias = "Callable[[Stage, str], tuple[Array, Array]]"
"""Factors and fresh spreads of a stage with a solver."""


def distances(schedule: Schedule) -> Array:
    """Computes relative squared 2-Wasserstein distances between bands of the data and of a schedule's output.

    The distance of two normal distributions with mean 0 is the difference of their standard deviations (Dowson and
    Landau, 1982). Feature caches and amplitudes are ignored.

    Returns:
        A distance for each band, (8,): 0 where the schedule is exact, 1 where the output lacks the band.
    """
    left = spreads(schedule, _VARIANCES, _FREQUENCIES, _solved_bands)
    squared: Array = (1 - left / np.sqrt(_VARIANCES)) ** 2
    return squared


def spreads(schedule: Schedule, variances: Array, frequencies: Array, solved: Solved) -> Array:
    """Computes the standard deviation that a schedule leaves in each mode of its output, (...).

    Args:
        schedule: The schedule. Its feature caches, guidance and amplitudes are ignored.
        variances: Variance of the data in each mode, relative to the noise, (...).
        frequencies: Frequency of each mode, relative to the highest one at full size; its shape broadcasts.
        solved: Solves a stage with a solver, as `solve_stage` does for these modes.
    """
    entered: Array = np.ones(variances.shape)  # unit noise
    spread = entered
    for index, stage in enumerate(schedule.stages):
        if index > 0:
            entered = _entered(spread, frequencies, schedule.stages[index - 1], stage)
        factor, fresh = solved(stage, schedule.solver_of(index))
        spread = np.hypot(factor * entered, fresh)
    return spread


def solve_stage(stage: Stage, solver: str, variances: Array, frequencies: Array) -> tuple[Array, Array]:
    """Computes each mode's factor over a stage, and the standard deviation that the solver's own noise adds.

    Both are 0 if the stage's size does not resolve the frequency. The flow is linear, so the latent and the
    noise of each step are solved side by side, one per row. Shapes are those of `spreads`.
    """
    present = np.less_equal(frequencies, stage.scale) * 1.0
    variances = np.where(present, stage.scale**2 * variances, 1.0)
    modes = (1,) * variances.ndim
    noise = np.array(stage.sigmas).reshape(-1, *modes)
    data = 1 - noise
    velocities = (noise - data * variances) / (data**2 * variances + noise**2)  # of a latent of 1
    by_level = dict(zip(stage.sigmas, velocities, strict=True))
    count = 1 + stage.steps * draws_noise(solver)
    rows = np.eye(count).reshape(count, count, *modes) * present

    def velocity(x: Array, sigma: float) -> Array:
        predicted: Array = by_level[sigma] * x
        return predicted

    calls = reusing(velocity, stage.sigmas, stage.reuse)
    made = solve(solver, calls, rows[0] + 0 * variances, stage.sigmas, lambda step: rows[1 + step])
    fresh: Array = np.sqrt((made[1:] ** 2).sum(axis=0))
    return made[0], fresh


@functools.lru_cache(maxsize=1024)  # similar schedules share stages
def _solved_bands(stage: Stage, solver: str) -> tuple[Array, Array]:
    return solve_stage(stage, solver, _VARIANCES, _FREQUENCIES)


def _entered(spread: Array, frequencies: Array, before: Stage, stage: Stage) -> Array:
    """Resizes and renoises, as `tuner.sampling.stage_start` does.

    Resizing kernels are assumed to keep every frequency. A coefficient of an orthonormal basis grows with the side
    of the image.
    """
    level, target, ratio = before.sigmas[-1], stage.sigmas[0], stage.scale / before.scale
    if stage.resample == "dct":
        target = aligned_sigma(level, ratio)
        return np.where(np.less_equal(frequencies, before.scale), target / level * spread, target)
    kept, added = renoising(level, target)
    entered: Array = np.hypot(kept * ratio * spread, added)
    return entered
