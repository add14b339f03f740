"""What schedules that were not run would score, and what they promise: a Gaussian process over their features."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from studies.judge.pareto import dominators
from studies.propose.features import CACHES, DISTANCES
from studies.propose.improvement import Array, expected_gains, normal_below, reference_point
from studies.propose.loss_scale import Warp

LEAST_KNOWN = 5
"""Results without which there is too little to predict scores from."""

_LENGTHS = (2.0, 4.0, 8.0, 16.0)
_SLOPE = 0.5  # standard deviations that values are expected to grow by with one of the mean distance
_NUGGET = 1e-2  # of the variance of the values: what two schedules of equal features may differ in
_UNSURE = 0.12  # standard error of a mean distance as a guess of a loss


class Surrogate:
    """A Gaussian process with a Matern-5/2 kernel (Rasmussen and Williams, 2006, Eq. 4.17 and Algorithm 2.1).

    Values are expected to grow with the mean distance to Gaussian data (`studies.propose.gaussian_data`), until
    results say otherwise. The length scale is the most likely one of a few. The variance is that of the values.

    Args:
        known: Features of n schedules, (n, features).
        values: Their values, (n,).
        errors: Standard errors of the values, (n,); 0 where a value is exact.
        length: The length scale; None for the most likely one.
    """

    def __init__(self, known: Array, values: Array, errors: Array, length: float | None = None):
        self._known = known
        self._mean, self._spread = float(values.mean()), float(values.std()) or 1.0
        distances = known[:, DISTANCES].mean(axis=1)
        self._usual, self._slope = distances.mean(), _SLOPE / (distances.std() or np.inf)
        scaled = (values - self._mean) / self._spread - self._expected(known)
        noise = (errors / self._spread) ** 2 + _NUGGET
        apart = _apart(known, known)
        fits = (self._fit(one, apart, scaled, noise) for one in (_LENGTHS if length is None else (length,)))
        self.length, self._factor, self._weights = max(fits, key=lambda fit: _likelihood(fit, scaled))

    def predict(self, wanted: Array) -> tuple[Array, Array]:
        """Predicts values and their standard errors, each (m,), of schedules of features (m, features)."""
        from scipy.linalg import solve_triangular

        covariance = _kernel(_apart(self._known, wanted), self.length)
        explained = solve_triangular(self._factor, covariance, lower=True, check_finite=False)
        left = np.maximum(1 - (explained**2).sum(axis=0), 1e-9)
        return self._means(wanted, covariance), self._spread * np.sqrt(left)

    def means(self, wanted: Array) -> Array:
        """Predicts the values alone, (m,), which takes less time."""
        return self._means(wanted, _kernel(_apart(self._known, wanted), self.length))

    def _means(self, wanted: Array, covariance: Array) -> Array:
        scaled = self._expected(wanted) + covariance.T @ self._weights
        means: Array = self._mean + self._spread * scaled
        return means

    def _expected(self, features: Array) -> Array:
        """Scaled values before any are known."""
        expected: Array = self._slope * (features[:, DISTANCES].mean(axis=1) - self._usual)
        return expected

    def _fit(self, length: float, apart: Array, scaled: Array, noise: Array) -> tuple[float, Array, Array]:
        from scipy.linalg import cho_solve, cholesky

        covariance = _kernel(apart, length) + np.diag(noise)
        factor = cholesky(covariance, lower=True, check_finite=False)
        return length, factor, cho_solve((factor, True), scaled, check_finite=False)


def _likelihood(fit: tuple[float, Array, Array], scaled: Array) -> float:
    """The logarithm of the marginal likelihood but for a constant."""
    _, factor, weights = fit
    return float(-0.5 * scaled @ weights - np.log(np.diag(factor)).sum())


def _apart(a: Array, b: Array) -> Array:
    from scipy.spatial.distance import cdist

    apart: Array = cdist(a, b)
    return apart


def _kernel(apart: Array, length: float) -> Array:
    apart = math.sqrt(5) / length * apart
    alike: Array = (1 + apart + apart**2 / 3) * np.exp(-apart)
    return alike


@dataclass(frozen=True)
class Unscored:
    """What a study expects before it has scores: the nearer a schedule comes to Gaussian data, the better.

    Attributes:
        features: Of the schedules that are on their way, (n, features), n > 0.
        costs: What an image costs, (n,).
        limit: The budget.
    """

    features: Array
    costs: Array
    limit: float

    def expected_gains(self, wanted: Array, costs: Array, headroom: float) -> Array:
        """Takes and returns what `Results` does; nothing is expected of a cache, whose errors are not known."""
        guessed, given = (every[:, DISTANCES].mean(axis=1, keepdims=True) for every in (wanted, self.features))
        front, reference = np.column_stack([self.costs, given]), reference_point(self.limit, given)
        below = functools.partial(normal_below, guessed, np.full_like(guessed, _UNSURE))
        gains = expected_gains(costs, below, front, front.min(axis=0), reference, headroom)
        return np.where(wanted[:, CACHES].any(axis=1), 0.0, gains)


@dataclass(frozen=True)
class Results:
    """What a study knows of schedules: n that have a result, and r whose result is on its way.

    Losses beyond the reference count as the reference: how bad a useless schedule is says little of the good ones,
    and would drown them.

    Attributes:
        features: Of those with a result, (n, features).
        costs: What an image costs, (n,).
        whole: Whether they were scored on all prompts, (n,); if not, they are no members of the front yet.
        losses: Mean scores, turned so that less is better, (n, losses).
        errors: Standard errors of those, over prompts.
        running: Features of those on their way, (r, features).
        running_costs: What an image costs, (r,).
        reference: Worst cost and losses that count, (1 + losses,).
    """

    features: Array
    costs: Array
    whole: npt.NDArray[np.bool_]
    losses: Array
    errors: Array
    running: Array
    running_costs: Array
    reference: Array

    @functools.cached_property
    def believed(self) -> Array:
        """Losses that are predicted of those with a result, (n, losses): without the luck that they had."""
        return self._warp.back(_predicted(self._surrogates, self.features))

    def on_front(self) -> npt.NDArray[np.bool_]:
        """Which of those with a result are on the front of cost and believed losses, (n,)."""
        on_front: npt.NDArray[np.bool_] = dominators(np.column_stack([self.costs, self.believed])) == 0
        return on_front

    def expected_gains(self, wanted: Array, costs: Array, headroom: float) -> Array:
        """Expected growth of the hypervolume by each of m schedules, once all that runs is there.

        What runs is believed to score what is predicted of it, and known from then on. The front that is to be
        beaten is that of believed losses: one of measured ones is made of the lucky.

        Args:
            wanted: Their features, (m, features).
            costs: What they cost, (m,).
            headroom: See `studies.propose.improvement.expected_gains`.
        """
        front = np.column_stack([self.costs, self.believed])
        best, front = front.min(axis=0), front[self.whole]
        surrogates = self._surrogates
        if len(self.running):
            believed = _predicted(surrogates, self.running)
            front = np.vstack([front, np.column_stack([self.running_costs, self._warp.back(believed)])])
            surrogates = _fitted(
                np.vstack([self.features, self.running]),
                np.vstack([self._values, believed]),
                np.vstack([self._errors, np.zeros_like(believed)]),
                [surrogate.length for surrogate in surrogates],
            )
        means, unsure = np.array([surrogate.predict(wanted) for surrogate in surrogates]).transpose(1, 2, 0)

        def below(losses: Array) -> Array:
            return normal_below(means, unsure, self._warp.there(losses))

        return expected_gains(costs, below, front, best, self.reference, headroom)

    @functools.cached_property
    def _counted(self) -> Array:
        counted: Array = np.minimum(self.losses, self.reference[1:])
        return counted

    @functools.cached_property
    def _warp(self) -> Warp:
        return Warp.between(self._counted, self.reference[1:], self.errors)

    @functools.cached_property
    def _values(self) -> Array:
        """What predictions are made from, (n, losses): counted losses on the scale."""
        return self._warp.there(self._counted)

    @functools.cached_property
    def _errors(self) -> Array:
        """Errors of the values, (n, losses): those where losses are predicted, not where luck put them."""
        first = _fitted(self.features, self._values, self._warp.errors(self._counted, self.errors))
        return self._warp.errors(self._warp.back(_predicted(first, self.features)), self.errors)

    @functools.cached_property
    def _surrogates(self) -> list[Surrogate]:
        return _fitted(self.features, self._values, self._errors)


def _fitted(known: Array, values: Array, errors: Array, lengths: Sequence[float] | None = None) -> list[Surrogate]:
    """One for each column of the values, and of their errors, (n, losses); see `Surrogate` for the rest."""
    each: Sequence[float | None] = lengths or [None] * len(values.T)
    return [Surrogate(known, *of_loss) for of_loss in zip(values.T, errors.T, each, strict=True)]


def _predicted(surrogates: Sequence[Surrogate], wanted: Array) -> Array:
    """Values of schedules of features (m, features), (m, surrogates)."""
    return np.array([surrogate.means(wanted) for surrogate in surrogates]).T
