"""What schedules that were not run would score, and what they promise: a Gaussian process over their features."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from studies.gains import expected_gains

Array: TypeAlias = npt.NDArray[np.float64]

_LENGTHS = (1.0, 2.0, 4.0, 8.0)
_NUGGET = 1e-2  # of the variance of the values: what two schedules of equal features may differ in


class Surrogate:
    """A Gaussian process with a Matern-5/2 kernel (Rasmussen and Williams, 2006, Eq. 4.17 and Algorithm 2.1).

    The length scale is the most likely one of a few. The variance is that of the values.

    Args:
        known: Features of n schedules, (n, features).
        values: Their values, (n,).
        errors: Standard errors of the values, (n,); 0 where a value is exact.
        length: The length scale; None for the most likely one.
    """

    def __init__(self, known: Array, values: Array, errors: Array, length: float | None = None):
        self._known = known
        self._mean, self._spread = float(values.mean()), float(values.std()) or 1.0
        scaled = (values - self._mean) / self._spread
        noise = (errors / self._spread) ** 2 + _NUGGET
        fits = (self._fit(one, scaled, noise) for one in (_LENGTHS if length is None else (length,)))
        self.length, self._factor, self._weights = max(fits, key=lambda fit: _likelihood(fit, scaled))

    def predict(self, wanted: Array) -> tuple[Array, Array]:
        """Predicts values and their standard errors, each (m,), of schedules of features (m, features)."""
        from scipy.linalg import solve_triangular

        covariance = _kernel(self._known, wanted, self.length)
        explained = solve_triangular(self._factor, covariance, lower=True, check_finite=False)
        left = np.maximum(1 - (explained**2).sum(axis=0), 1e-9)
        mean: Array = self._mean + self._spread * covariance.T @ self._weights
        return mean, self._spread * np.sqrt(left)

    def _fit(self, length: float, scaled: Array, noise: Array) -> tuple[float, Array, Array]:
        from scipy.linalg import cho_solve, cholesky

        covariance = _kernel(self._known, self._known, length) + np.diag(noise)
        factor = cholesky(covariance, lower=True, check_finite=False)
        return length, factor, cho_solve((factor, True), scaled, check_finite=False)


def _likelihood(fit: tuple[float, Array, Array], scaled: Array) -> float:
    """The logarithm of the marginal likelihood but for a constant."""
    _, factor, weights = fit
    return float(-0.5 * scaled @ weights - np.log(np.diag(factor)).sum())


def _kernel(a: Array, b: Array, length: float) -> Array:
    from scipy.spatial.distance import cdist

    distance: Array = math.sqrt(5) / length * cdist(a, b)
    return (1 + distance + distance**2 / 3) * np.exp(-distance)


@dataclass(frozen=True)
class Results:
    """What a study knows of schedules: n that have a result, and r whose result is on its way.

    Attributes:
        features: Of those with a result, (n, features).
        costs: What an image costs, (n,).
        losses: Mean scores, turned so that less is better, (n, losses).
        errors: Standard errors of those; 0 where they are exact.
        running: Features of those on their way, (r, features).
        running_costs: What an image costs, (r,).
    """

    features: Array
    costs: Array
    losses: Array
    errors: Array
    running: Array
    running_costs: Array

    def expected_gains(self, wanted: Array, costs: Array, reference: Array) -> Array:
        """Expected growth of the hypervolume by each of m schedules, once all that runs is there.

        What runs is believed to score what is predicted of it, and known from then on. Losses beyond the reference
        count as the reference: how bad a useless schedule is says little of the good ones, and would drown them.

        Args:
            wanted: Their features, (m, features).
            costs: What they cost, (m,).
            reference: Worst cost and losses that count, (1 + losses,).
        """
        means, errors, believed = [], [], []
        for losses, error in zip(np.minimum(self.losses, reference[1:]).T, self.errors.T, strict=True):
            surrogate = Surrogate(self.features, losses, error)
            if len(self.running):
                believed.append(surrogate.predict(self.running)[0])
                surrogate = Surrogate(
                    np.vstack([self.features, self.running]),
                    np.concatenate([losses, believed[-1]]),
                    np.concatenate([error, np.zeros(len(self.running))]),
                    surrogate.length,
                )
            mean, spread = surrogate.predict(wanted)
            means.append(mean)
            errors.append(spread)
        front = np.column_stack([self.costs, self.losses])
        if len(self.running):
            front = np.vstack([front, np.column_stack([self.running_costs, *believed])])
        return expected_gains(costs, np.array(means).T, np.array(errors).T, front, reference)
