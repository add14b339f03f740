"""Predicts the scores of schedules that have not run, and their expected gains: a Gaussian process on features."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

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
_SHARES = (0.0, 0.25, 0.5)  # larger ones trust another model in what tells the best schedules apart
_DOUBT = 1.0  # of a guess: by so much a share of 1 is less probable than none, as a logarithm
_UNSURE = 0.12  # standard error of a loss that is guessed from the mean distance


Guess: TypeAlias = Callable[[Array], Array]
"""Guesses values, (m,), up to their mean and their spread, at features, (m, features)."""


class Surrogate:
    """A Gaussian process with a Matern-5/2 kernel (Rasmussen and Williams, 2006, Eq. 4.17 and Algorithm 2.1).

    The prior mean grows with the mean distance to Gaussian data (`studies.propose.gaussian_data`). With a guess
    (`studies.propose.transfer`), a share of the prior mean is the guess instead. Where that share is r, the guess
    explains r^2 of the variance of the values, as in a linear regression, and the process has the rest. Length
    scale and share are those of a few with the highest posterior probability, where shares are less probable the
    larger they are. So a guess that does not fit the values loses its share, and few values that fit it by chance
    do not give it one. The prior variance is the variance of the values.

    Args:
        known: Features of n schedules, (n, features).
        values: Their values, (n,).
        errors: Standard errors of the values, (n,); 0 where a value is exact.
        chosen: The length scale and the share of the guess; None to choose them.
        guess: Guesses values; None for no guess.

    Attributes:
        chosen: The length scale and the share of the guess.
        spread: Standard deviation of the values.
    """

    def __init__(
        self,
        known: Array,
        values: Array,
        errors: Array,
        chosen: tuple[float, float] | None = None,
        guess: Guess | None = None,
    ):
        self._known, self._guess = known, guess
        self._mean, self.spread = float(values.mean()), float(values.std()) or 1.0
        distances = known[:, DISTANCES].mean(axis=1)
        self._usual, self._slope = distances.mean(), _SLOPE / (distances.std() or np.inf)
        if guess is not None:
            guessed = guess(known)
            self._center, self._unit = float(guessed.mean()), float(guessed.std()) or np.inf
        scaled = (values - self._mean) / self.spread
        noise = (errors / self.spread) ** 2 + _NUGGET
        apart = _apart(known, known)
        shares = (0.0,) if guess is None else _SHARES
        tried = itertools.product(_LENGTHS, shares) if chosen is None else (chosen,)
        priors = {share: self._expected(known, share) for share in {*shares, *((chosen[1],) if chosen else ())}}
        fits = (self._fit(length, share, apart, scaled - priors[share], noise) for length, share in tried)
        best = max(fits, key=lambda fit: fit.probability)
        self.chosen, self._factor, self._weights = best.chosen, best.factor, best.weights

    def predict(self, wanted: Array) -> tuple[Array, Array]:
        """Returns posterior means and standard deviations, each (m,), at features (m, features)."""
        from scipy.linalg import solve_triangular

        covariance = self._covariance(wanted)
        explained = solve_triangular(self._factor, covariance, lower=True, check_finite=False)
        left = np.maximum(_left(self.chosen[1]) - (explained**2).sum(axis=0), 1e-9)
        return self._means(wanted, covariance), self.spread * np.sqrt(left)

    def means(self, wanted: Array) -> Array:
        """Returns posterior means alone, (m,), which is faster."""
        return self._means(wanted, self._covariance(wanted))

    def _covariance(self, wanted: Array) -> Array:
        length, share = self.chosen
        covariance: Array = _left(share) * _kernel(_apart(self._known, wanted), length)
        return covariance

    def _means(self, wanted: Array, covariance: Array) -> Array:
        scaled = self._expected(wanted, self.chosen[1]) + covariance.T @ self._weights
        means: Array = self._mean + self.spread * scaled
        return means

    def _expected(self, features: Array, share: float) -> Array:
        """Returns the scaled prior means."""
        expected: Array = self._slope * (features[:, DISTANCES].mean(axis=1) - self._usual)
        if self._guess is not None and share > 0:
            expected = (1 - share) * expected + share * (self._guess(features) - self._center) / self._unit
        return expected

    def _fit(self, length: float, share: float, apart: Array, scaled: Array, noise: Array) -> _Fit:
        from scipy.linalg import cho_solve, cholesky

        covariance = _left(share) * _kernel(apart, length) + np.diag(noise)
        factor = cholesky(covariance, lower=True, check_finite=False)
        weights = cho_solve((factor, True), scaled, check_finite=False)
        likelihood = float(-0.5 * scaled @ weights - np.log(np.diag(factor)).sum())  # up to a constant
        return _Fit((length, share), factor, weights, likelihood - _DOUBT * share)


@dataclass(frozen=True)
class _Fit:
    """A length scale and a share of the guess, and what follows from them."""

    chosen: tuple[float, float]
    factor: Array
    weights: Array
    probability: float  # its logarithm, up to a constant


def _left(share: float) -> float:
    """Returns the part of the variance that a guess leaves."""
    return 1 - share**2


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
        lessons: Makes guesses of each loss from what is known of it; None without earlier studies.
    """

    features: Array
    costs: Array
    complete: npt.NDArray[np.bool_]
    losses: Array
    errors: Array
    pending: Array
    pending_costs: Array
    reference: Array
    lessons: Callable[[Array, Array], Sequence[Guess]] | None = None

    @classmethod
    def of(
        cls,
        plan: Plan,
        scored: Sequence[Trial],
        references: Sequence[Trial],
        pending: Sequence[Trial],
        lessons: Callable[[Array, Array], Sequence[Guess]] | None = None,
    ) -> Results:
        """Reads scored and pending trials.

        Args:
            plan: The search.
            scored: Trials that succeeded, at least one.
            references: Trials that succeeded, with the losses of the reference point; if none, the scored ones.
            pending: Trials without known outcomes.
            lessons: Makes guesses of each loss; None without earlier studies.
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
            lessons=lessons,
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
                [surrogate.chosen for surrogate in surrogates],
                self._guesses,
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
    def _guesses(self) -> Sequence[Guess | None]:
        if self.lessons is None:
            return [None] * self.losses.shape[1]
        return self.lessons(self.features, self._values)

    @functools.cached_property
    def _surrogates(self) -> list[Surrogate]:
        return _fitted(self.features, self._values, self._errors, None, self._guesses)


def features_of(trials: Sequence[Trial]) -> Array:
    """Computes the features of the schedules of some trials, (n, features)."""
    return np.array([features(trial.schedule, trial.price) for trial in trials])


def _fitted(
    known: Array,
    values: Array,
    errors: Array,
    chosen: Sequence[tuple[float, float]] | None = None,
    guesses: Sequence[Guess | None] | None = None,
) -> list[Surrogate]:
    """Fits a surrogate to each column of the values and their errors, (n, losses); see `Surrogate`."""
    each: Sequence[tuple[float, float] | None] = chosen or [None] * len(values.T)
    guessed = guesses or [None] * len(values.T)
    return [Surrogate(known, *of_loss) for of_loss in zip(values.T, errors.T, each, guessed, strict=True)]


def _predicted(surrogates: Sequence[Surrogate], wanted: Array) -> Array:
    """Returns posterior means at features (m, features), (m, surrogates)."""
    return np.array([surrogate.means(wanted) for surrogate in surrogates]).T
