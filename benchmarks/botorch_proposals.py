"""A library in the place of our own process: BoTorch's Gaussian processes and acquisition on the same candidates.

Losses have a `SingleTaskGP` each, with the standard errors as fixed noise; the cost is a known function of the
features. The acquisition is `qLogNoisyExpectedHypervolumeImprovement` (Ament et al., arXiv 2310.20708).
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
import torch
from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
from botorch.acquisition.multi_objective.objective import MCMultiOutputObjective
from botorch.fit import fit_gpytorch_mll
from botorch.models import ModelListGP, SingleTaskGP
from botorch.models.transforms import Normalize, Standardize
from botorch.sampling import SobolQMCNormalSampler
from gpytorch.mlls import ExactMarginalLogLikelihood

from studies.propose.improvement import Array
from studies.propose.surrogate import Results

SAMPLES = 64


def posterior_means(results: Results) -> Array:
    """Replaces `Results.posterior_means`: posterior mean losses of the scored schedules, (n, losses)."""
    models = _models(results)
    with torch.no_grad():
        means = [-model.posterior(_tensor(results.features)).mean for model in models]
    found: Array = torch.cat(means, dim=1).numpy()
    return found


def expected_gains(results: Results, wanted: Array, costs: Array, headroom: float) -> Array:
    """Replaces `Results.expected_gains`: the acquisition of m candidates up to a factor, (m,)."""
    torch.manual_seed(len(results.losses))
    acquisition = qLogNoisyExpectedHypervolumeImprovement(
        model=ModelListGP(*_models(results)),
        objective=_WithCost(),
        ref_point=(-np.roll(results.reference, -1)).tolist(),  # losses first, then the cost
        X_baseline=_tensor(results.features[results.complete] if results.complete.any() else results.features),
        X_pending=_tensor(results.pending) if len(results.pending) else None,
        sampler=SobolQMCNormalSampler(torch.Size([SAMPLES])),
        prune_baseline=True,
    )
    with torch.no_grad():
        logs = acquisition(_tensor(wanted)[:, None])
    gains: Array = (logs - logs.max()).exp().numpy()
    return gains


def _models(results: Results) -> list[SingleTaskGP]:
    return _fitted(results.features.tobytes(), results.losses.tobytes(), _Held(results))


class _WithCost(MCMultiOutputObjective):
    """Adds the cost, which is exact: the first feature is the log of the TFLOPs."""

    def forward(self, samples: torch.Tensor, X: torch.Tensor | None = None) -> torch.Tensor:
        assert X is not None
        cost = -X[..., :1].exp().expand(*samples.shape[:-1], 1)
        return torch.cat([samples, cost], dim=-1)


class _Held:
    """Results that count as equal to any others, so that a cache goes by the other arguments."""

    def __init__(self, results: Results):
        self.results = results

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held)

    def __hash__(self) -> int:
        return 0


@functools.lru_cache(maxsize=2)
def _fitted(features: bytes, losses: bytes, held: _Held) -> list[SingleTaskGP]:
    results = held.results
    x = _tensor(results.features)
    values = -np.minimum(results.losses, results.reference[1:])  # as our own process clips them
    models = []
    for value, error in zip(values.T, results.errors.T, strict=True):
        noise = np.maximum(error, 1e-6 + 1e-3 * float(np.std(value))) ** 2
        model = SingleTaskGP(
            x,
            _tensor(value)[:, None],
            _tensor(noise)[:, None],
            outcome_transform=Standardize(m=1),
            input_transform=Normalize(d=x.shape[1]),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        models.append(model)
    return models


def _tensor(values: Any) -> torch.Tensor:
    return torch.as_tensor(np.asarray(values), dtype=torch.float64)
