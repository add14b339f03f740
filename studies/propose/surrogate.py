"""Predicts the scores of schedules that have not run, and their expected gains: a Gaussian process on features."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from studies.judge.pareto import nondominated
from studies.propose.features import CACHES, DISTANCES, features
from studies.propose.improvement import Array, expected_gains, normal_below, reference_point
from studies.propose.loss_scale import Warp

if TYPE_CHECKING:
    from studies.plan.plan import Plan
    from studies.propose.trial import Trial

LEAST_KNOWN = 5
"""The least number of scored schedules that scores are predicted from."""

_LENGTHS = (2.0, 4.0, 8.0, 16.0)
_SLOPE = 0.5  # prior: one standard deviation of the mean distance adds so many of the values
_NUGGET = 1e-2  # share of the variance of the values that features do not explain
_UNSURE = 0.12  # standard error of a loss that is guessed from the mean distance


class Surrogate:
    """A Gaussian process with a Matern-5/2 kernel (Rasmussen and Williams, 2006, Eq. 4.17 and Algorithm 2.1).

    The prior mean grows with the mean distance to Gaussian data (`studies.propose.gaussian_data`). The length
    scale is the one of a few with the highest marginal likelihood. The prior variance is the variance of the
    values.

    Args:
        known: Features of n schedules, (n, features).
        values: Their values, (n,).
        errors: Standard errors of the values, (n,); 0 where a value is exact.
        length: The length scale; None to choose it.
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
        """Returns posterior means and standard deviations, each (m,), at features (m, features)."""
        from scipy.linalg import solve_triangular

        covariance = _kernel(_apart(self._known, wanted), self.length)
        explained = solve_triangular(self._factor, covariance, lower=True, check_finite=False)
        left = np.maximum(1 - (explained**2).sum(axis=0), 1e-9)
        return self._means(wanted, covariance), self._spread * np.sqrt(left)

    def means(self, wanted: Array) -> Array:
        """Returns posterior means alone, (m,), which is faster."""
        return self._means(wanted, _kernel(_apart(self._known, wanted), self.length))

    def _means(self, wanted: Array, covariance: Array) -> Array:
        scaled = self._expected(wanted) + covariance.T @ self._weights
        means: Array = self._mean + self._spread * scaled
        return means

    def _expected(self, features: Array) -> Array:
        """Returns the scaled prior means."""
        expected: Array = self._slope * (features[:, DISTANCES].mean(axis=1) - self._usual)
        return expected

    def _fit(self, length: float, apart: Array, scaled: Array, noise: Array) -> tuple[float, Array, Array]:
        from scipy.linalg import cho_solve, cholesky

        covariance = _kernel(apart, length) + np.diag(noise)
        factor = cholesky(covariance, lower=True, check_finite=False)
        return length, factor, cho_solve((factor, True), scaled, check_finite=False)


def _likelihood(fit: tuple[float, Array, Array], scaled: Array) -> float:
    """Computes the log marginal likelihood up to a constant."""
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
    """A study without scores: it guesses losses from the distances to Gaussian data.

    Attributes:
        features: Features of the started schedules, (n, features), n > 0.
        costs: Their costs per image, (n,).
        limit: The budget.
    """

    features: Array
    costs: Array
    limit: float

    def expected_gains(self, wanted: Array, costs: Array, headroom: float) -> Array:
        """Computes expected gains as `Results` does; 0 for feature caches, whose errors the distances miss."""
        guessed, started = (every[:, DISTANCES].mean(axis=1, keepdims=True) for every in (wanted, self.features))
        front, reference = np.column_stack([self.costs, started]), reference_point(self.limit, started)
        below = functools.partial(normal_below, guessed, np.full_like(guessed, _UNSURE))
        gains = expected_gains(costs, below, front, front.min(axis=0), reference, headroom)
        return np.where(wanted[:, CACHES].any(axis=1), 0.0, gains)


@dataclass(frozen=True)
class Results:
    """A study with scores: n scored schedules and p pending ones.

    Losses beyond the reference are clipped to it: how bad a useless schedule is says little about the good ones.

    Attributes:
        features: Features of the scored schedules, (n, features).
        costs: Their costs per image, (n,).
        complete: Whether they were scored on all prompts, (n,); only these are on the front.
        losses: Their mean scores, signed so that less is better, (n, losses).
        errors: Standard errors of the losses over prompts, (n, losses).
        pending: Features of the pending schedules, (p, features).
        pending_costs: Their costs per image, (p,).
        reference: The reference point of the hypervolume: cost, then losses, (1 + losses,).
    """

    features: Array
    costs: Array
    complete: npt.NDArray[np.bool_]
    losses: Array
    errors: Array
    pending: Array
    pending_costs: Array
    reference: Array

    @classmethod
    def of(
        cls, plan: Plan, scored: Sequence[Trial], references: Sequence[Trial], pending: Sequence[Trial]
    ) -> Results:
        """Reads scored and pending trials.

        Args:
            plan: The search.
            scored: Trials that succeeded, at least one.
            references: Trials that succeeded, with the losses of the reference point; if none, the scored ones.
            pending: Trials without known outcomes.
        """
        losses = np.array([trial.result.losses for trial in references or scored])
        return cls(
            features=features_of(scored),
            costs=np.array([trial.cost for trial in scored]),
            complete=np.array([plan.is_last(trial.rung) for trial in scored]),
            losses=np.array([trial.result.losses for trial in scored]),
            errors=np.array([trial.result.errors for trial in scored]),
            pending=features_of(pending),
            pending_costs=np.array([trial.cost for trial in pending]),
            reference=reference_point(plan.budget.limit, losses),
        )

    @functools.cached_property
    def posterior_means(self) -> Array:
        """Posterior mean losses of the scored schedules, (n, losses), which removes evaluation noise."""
        return self._warp.inverse(_predicted(self._surrogates, self.features))

    def on_front(self) -> npt.NDArray[np.bool_]:
        """Finds the scored schedules on the front of cost and posterior mean losses, (n,)."""
        return nondominated(np.column_stack([self.costs, self.posterior_means]), keep_equal=True)

    def expected_gains(self, wanted: Array, costs: Array, headroom: float) -> Array:
        """Computes the expected hypervolume improvement of m candidates, once all pending schedules are scored.

        A pending schedule counts as scored, without error, at its posterior mean (the kriging believer;
        Ginsbourger, Le Riche, Carraro, 2010). The front to improve on is that of posterior mean losses, because
        a front of measured losses consists of lucky schedules.

        Args:
            wanted: Features of the candidates, (m, features).
            costs: Their costs per image, (m,).
            headroom: See `studies.propose.improvement.expected_gains`.
        """
        front = np.column_stack([self.costs, self.posterior_means])
        best, front = front.min(axis=0), front[self.complete]
        surrogates = self._surrogates
        if len(self.pending):
            means = _predicted(surrogates, self.pending)
            front = np.vstack([front, np.column_stack([self.pending_costs, self._warp.inverse(means)])])
            surrogates = _fitted(
                np.vstack([self.features, self.pending]),
                np.vstack([self._values, means]),
                np.vstack([self._errors, np.zeros_like(means)]),
                [surrogate.length for surrogate in surrogates],
            )
        means, deviations = np.array([surrogate.predict(wanted) for surrogate in surrogates]).transpose(1, 2, 0)

        def below(losses: Array) -> Array:
            return normal_below(means, deviations, self._warp.forward(losses))

        return expected_gains(costs, below, front, best, self.reference, headroom)

    @functools.cached_property
    def _clipped(self) -> Array:
        clipped: Array = np.minimum(self.losses, self.reference[1:])
        return clipped

    @functools.cached_property
    def _warp(self) -> Warp:
        return Warp.between(self._clipped, self.reference[1:], self.errors)

    @functools.cached_property
    def _values(self) -> Array:
        """The training targets of the surrogates, (n, losses): clipped, warped losses."""
        return self._warp.forward(self._clipped)

    @functools.cached_property
    def _errors(self) -> Array:
        """Errors of the warped losses, (n, losses), at predicted losses instead of noisy measured ones."""
        first = _fitted(self.features, self._values, self._warp.errors(self._clipped, self.errors))
        return self._warp.errors(self._warp.inverse(_predicted(first, self.features)), self.errors)

    @functools.cached_property
    def _surrogates(self) -> list[Surrogate]:
        return _fitted(self.features, self._values, self._errors)


def features_of(trials: Sequence[Trial]) -> Array:
    """Computes the features of the schedules of some trials, (n, features)."""
    return np.array([features(trial.schedule, trial.price) for trial in trials])


def _fitted(known: Array, values: Array, errors: Array, lengths: Sequence[float] | None = None) -> list[Surrogate]:
    """Fits a surrogate to each column of the values and their errors, (n, losses); see `Surrogate`."""
    each: Sequence[float | None] = lengths or [None] * len(values.T)
    return [Surrogate(known, *of_loss) for of_loss in zip(values.T, errors.T, each, strict=True)]


def _predicted(surrogates: Sequence[Surrogate], wanted: Array) -> Array:
    """Returns posterior means at features (m, features), (m, surrogates)."""
    return np.array([surrogate.means(wanted) for surrogate in surrogates]).T
