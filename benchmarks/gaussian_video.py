"""Videos of which everything is known: Gaussian data, whose velocity is linear in every mode.

A video is a stationary Gaussian field on latent frames. Its power falls with the spatial frequency as a power law.
In time, every spatial mode is an autoregressive process of first order (AR(1)), which forgets the faster the finer
the mode is, as motion does. The Karhunen-Loeve modes of the video (waves in space, the eigenvectors of the AR(1)
covariance in time) are independent, and white noise is white in them. So the velocity of the flow
x = (1 - sigma) data + sigma noise has a formula in each mode, and so has the standard deviation that a schedule
leaves there. Nothing is sampled: results are exact at any size and any number of frames, up to the rings that
spatial frequencies are put together in. Resizing keeps every frequency that both sizes have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from studies.propose import gaussian_data
from studies.propose.improvement import Array

if TYPE_CHECKING:
    from tuner.schedule import Schedule

HIGHEST = 30.0
"""The highest spatial frequency at full size, cycles per picture height: latents of 60 rows."""

_RINGS = 12


@dataclass(frozen=True)
class Contents:
    """What the prompts show, each (prompts,).

    Attributes:
        slopes: Power falls with frequency to minus this.
        variances: Variance of the latents.
        motions: How much of the correlation of successive latent frames is lost per cycle per picture height.
    """

    slopes: Array
    variances: Array
    motions: Array

    @classmethod
    def drawn(cls, prompts: int, seed: int = 0) -> Contents:
        """Draws contents about those of natural videos (power law of 2, unit variance)."""
        rng = np.random.default_rng(seed)
        return cls(
            slopes=rng.normal(2.0, 0.25, prompts),
            variances=rng.lognormal(0.0, 0.3, prompts),
            motions=rng.lognormal(np.log(0.03), 0.7, prompts),
        )


class GaussianVideo:
    """Videos at one size and number of frames.

    Args:
        contents: What the prompts show.
        frames: Number of latent frames.
        size: Side of the output relative to full size, at most 1.
    """

    def __init__(self, contents: Contents, frames: int, size: float = 1.0):
        edges = np.geomspace(1.0, HIGHEST, _RINGS + 1)
        centres = np.sqrt(edges[1:] * edges[:-1])
        modes = np.diff(edges**2)  # their number grows with the area
        power = centres ** -contents.slopes[:, None]
        power *= (contents.variances / (power @ modes) * modes.sum())[:, None]  # per mode of full size
        shown = centres <= size * HIGHEST
        self._frequencies: Array = centres[shown][:, None] / (size * HIGHEST)
        forgotten = contents.motions[:, None] * centres[shown]
        in_time = ar1_spectrum(np.exp(-forgotten), frames)
        self.variances: Array = size**2 * power[:, shown, None] * in_time
        """Variance of the data in each mode, (prompts, rings, frames)."""

    def distances(self, schedule: Schedule) -> Array:
        """Computes relative squared 2-Wasserstein distances of a schedule's videos to the data, (prompts, rings).

        They are means over the modes in time. See `studies.propose.gaussian_data.distances`.
        """
        distances: Array = ((1 - self.spreads(schedule) / np.sqrt(self.variances)) ** 2).mean(axis=2)
        return distances

    def spreads(self, schedule: Schedule) -> Array:
        """Computes the standard deviation that a schedule leaves in each mode, (prompts, rings, frames).

        Feature caches, guidance and amplitudes are ignored.
        """
        modes = self.variances, self._frequencies
        return gaussian_data.spreads(
            schedule, *modes, lambda stage, solver: gaussian_data.solve_stage(stage, solver, *modes)
        )


def ar1_spectrum(correlations: Array, frames: int) -> Array:
    """Computes the eigenvalues of the covariance of unit AR(1) processes, (..., frames); they add up to frames.

    Args:
        correlations: Of successive frames, (...).
        frames: Length of the process.
    """
    lags = np.abs(np.subtract.outer(np.arange(frames), np.arange(frames)))
    covariances: Array = correlations[..., None, None] ** lags
    return np.asarray(np.linalg.eigvalsh(covariances), dtype=np.float64)
