"""What earlier studies say about the schedules of this one, weighed by how well they rank its results.

An earlier study may be of another model, size, number of frames, LoRA or budget. A Gaussian process on its results
ranks any schedule, by features that all models share. What a search gets of it is a guess (see `Surrogate`), and
schedules to try. Earlier studies are weighed against each other by ranking, like the members of a ranking-weighted
ensemble (Feurer et al., arXiv 1802.02219, Sec. 4): a study that ranks the results of this one no better than a
coin has no weight. How much all of them count beside the results is decided by marginal likelihood, so they fade
where they mislead. They decide what runs, and never what is reported.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, Any

import numpy as np

from objectives.base import loss_sign
from studies.judge.pareto import nondominated
from studies.propose.features import described, relative
from studies.propose.loss_scale import Warp
from studies.propose.surrogate import Guess, Surrogate

if TYPE_CHECKING:
    from studies.plan.knowledge import Knowledge
    from studies.plan.plan import Plan
    from studies.propose.improvement import Array
    from tuner.flops import Price
    from tuner.schedule import Schedule

_USELESS = 0.9  # quantile of an earlier study's losses; those beyond it are equally useless


@dataclass(frozen=True)
class Lessons:
    """Makes guesses of each loss of a study from what is known of it.

    Args:
        surrogates: Of each earlier study, one for each loss, on relative features.
        baseline: The price of this study's baseline.
    """

    surrogates: Sequence[Sequence[Surrogate]]
    baseline: Price

    def __call__(self, known: Array, values: Array) -> list[Guess]:
        """Weighs the earlier studies by how well they rank known values.

        Args:
            known: Features of n schedules, (n, features).
            values: Their losses on any increasing scale, (n, losses).
        """
        return [self._guess(known, column, loss) for loss, column in enumerate(values.T)]

    def _guess(self, known: Array, values: Array, loss: int) -> Guess:
        features = relative(known, self.baseline)
        weights = np.array([agreement(study[loss].means(features), values) for study in self.surrogates])
        return functools.partial(self._mixed, loss, weights)

    def _mixed(self, loss: int, weights: Array, wanted: Array) -> Array:
        """Averages standard scores of the earlier predictions; all are 0 where no study has a weight."""
        features = relative(wanted, self.baseline)
        mixed = np.zeros(len(wanted))
        for weight, study in zip(weights, self.surrogates, strict=True):
            if weight > 0:
                mixed += weight * study[loss].means(features) / study[loss].spread
        return mixed


def lessons_of(plan: Plan) -> Lessons | None:
    """Returns what the plan's earlier studies teach; None without any."""
    if not plan.learnt:
        return None
    names = tuple(plan.directions)
    return Lessons([_surrogates(study, names) for study in plan.learnt], plan.baseline_price)


def best_taught(plan: Plan) -> list[tuple[Schedule, Mapping[str, Any]]]:
    """Returns what the plan's space makes of the schedules on the fronts of expected losses of earlier studies."""
    names = tuple(plan.directions)
    fronts = {schedule for study in plan.learnt for schedule in _front(study, names)}
    return [(schedule, params) for original, schedule, params in plan.taught if original in fronts]


def agreement(guessed: Array, values: Array) -> float:
    """Returns by how much more pairs are ranked alike than not, as a part of all, and no less than 0.

    This is Kendall's tau where no values are equal.
    """
    first, second = np.triu_indices(len(values), 1)
    signs = np.sign(guessed[first] - guessed[second]) * np.sign(values[first] - values[second])
    return max(0.0, float(signs.mean())) if len(signs) else 0.0


@functools.lru_cache(maxsize=64)
def _surrogates(study: Knowledge, names: tuple[str, ...]) -> list[Surrogate]:
    """Fits surrogates of an earlier study's losses, one for each objective by name."""
    features = _features(study)
    columns = [study.column(name) for name in names]
    signs = [loss_sign(study.objectives[column].direction) for column in columns]
    differences = [[found.differences[column] for column in columns] for found in study.results]
    losses = np.array([[sign * one.delta for sign, one in zip(signs, row, strict=True)] for row in differences])
    errors = np.array([[one.error for one in row] for row in differences])
    reference = np.quantile(losses, _USELESS, axis=0)
    losses = np.minimum(losses, reference)
    warp = Warp.between(losses, reference, errors)
    values, warped_errors = warp.forward(losses), warp.errors(losses, errors)
    return [Surrogate(features, *column) for column in zip(values.T, warped_errors.T, strict=True)]


def _features(study: Knowledge) -> Array:
    """Returns the relative features of what a study found, (n, features)."""
    calls = study.calls
    return np.array([described(one.schedule, one.cost * calls, one.passes * calls) for one in study.results])


@functools.lru_cache(maxsize=64)
def _front(study: Knowledge, names: tuple[str, ...]) -> frozenset[Schedule]:
    """Finds the schedules that no other one of the study beats in cost and in all expected losses."""
    features = _features(study)
    means = [surrogate.means(features) for surrogate in _surrogates(study, names)]
    kept = nondominated(np.column_stack([[one.cost for one in study.results], *means]), keep_equal=True)
    return frozenset(one.schedule for one in compress(study.results, kept))
