"""The scale on which losses are predicted: nearly linear close to the best, logarithmic far from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from studies.propose.improvement import Array

_LINEAR = 0.1  # of the range from the best losses to the reference: where the scale stops being linear


@dataclass(frozen=True)
class Warp:
    """Inverse hyperbolic sines of losses (Burbidge, Magee and Robb, JASA 83, 1988).

    Bad schedules lose many times what good ones differ by. On a linear scale the good ones all look alike; on a
    logarithmic one, little differences between the best of them count too much.

    Attributes:
        best: Losses that count as 0, (losses,).
        unit: By how much losses exceed those where the scale turns from linear to logarithmic, (losses,).
    """

    best: Array
    unit: Array

    @classmethod
    def between(cls, losses: Array, reference: Array, errors: Array) -> Warp:
        """The scale for losses that are not beyond a reference.

        Args:
            losses: (n, losses).
            reference: (losses,).
            errors: Standard errors of the losses: what they hide needs no finer scale, (n, losses).
        """
        best = losses.min(axis=0)
        unit = np.maximum(_LINEAR * (reference - best), np.median(errors, axis=0))
        return cls(best, np.where(unit > 0, unit, 1.0))

    def there(self, losses: Array) -> Array:
        """Losses on the scale, (n, losses)."""
        warped: Array = np.arcsinh((losses - self.best) / self.unit)
        return warped

    def back(self, warped: Array) -> Array:
        """What is on the scale as losses, (n, losses)."""
        losses: Array = self.best + self.unit * np.sinh(warped)
        return losses

    def errors(self, losses: Array, errors: Array) -> Array:
        """Small errors of losses on the scale, (n, losses)."""
        warped: Array = errors / np.hypot(self.unit, losses - self.best)
        return warped
