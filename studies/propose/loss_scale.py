"""The scale on which losses are predicted: nearly linear near the best loss, logarithmic far from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from studies.propose.improvement import Array

_LINEAR = 0.1  # share of the range from the best loss to the reference where the scale is nearly linear


@dataclass(frozen=True)
class Warp:
    """Inverse hyperbolic sines of losses (Burbidge, Magee and Robb, JASA 83, 1988).

    The losses of bad schedules are many times larger than the differences between good ones. A linear scale makes
    all good schedules look alike. A logarithmic scale exaggerates small differences between the best of them.

    Attributes:
        best: Losses that map to 0, (losses,).
        unit: Distance from the best loss at which the scale turns from linear to logarithmic, (losses,).
    """

    best: Array
    unit: Array

    @classmethod
    def between(cls, losses: Array, reference: Array, errors: Array) -> Warp:
        """Chooses the scale for losses that do not exceed a reference.

        Args:
            losses: (n, losses).
            reference: (losses,).
            errors: Standard errors of the losses, (n, losses); the scale resolves nothing finer.
        """
        best = losses.min(axis=0)
        unit = np.maximum(_LINEAR * (reference - best), np.median(errors, axis=0))
        return cls(best, np.where(unit > 0, unit, 1.0))

    def forward(self, losses: Array) -> Array:
        """Maps losses to the scale, (n, losses)."""
        warped: Array = np.arcsinh((losses - self.best) / self.unit)
        return warped

    def inverse(self, warped: Array) -> Array:
        """Maps values on the scale back to losses, (n, losses)."""
        losses: Array = self.best + self.unit * np.sinh(warped)
        return losses

    def errors(self, losses: Array, errors: Array) -> Array:
        """Maps small errors of losses to the scale, (n, losses)."""
        warped: Array = errors / np.hypot(self.unit, losses - self.best)
        return warped
