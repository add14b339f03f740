"""Theory: the sampling loop itself, run on Gaussian data, leaves the spread that is predicted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.fft import dctn

from studies.propose.gaussian_data import BANDS, distances
from tests.gaussian import exact_velocity
from tests.studies.toy import ToyModel
from tuner.sampling import sample
from tuner.schedule import Schedule, Stage
from tuner.solvers import available

SIDE = 64
VARIANCES, FREQUENCIES = np.array(BANDS).T


class WhiteData(ToyModel):
    """The exact velocity for independent pixels of one variance, seen at any size by its cosine spectrum."""

    def __init__(self, variance: float):
        super().__init__()
        self._variance = variance

    def velocity(self, x_BCHW: torch.Tensor, sigma: float, conditioning: Any) -> torch.Tensor:
        velocity: torch.Tensor = exact_velocity(x_BCHW, sigma, self._variance * (x_BCHW.shape[-1] / SIDE) ** 2)
        return velocity


SCHEDULES = {
    "plain": [{"steps": 4, "shift": 3}],
    "renoised": [{"steps": 3}, {"steps": 2, "strength": 0.6}],
    "renoised before it is clean": [{"sigmas": [1, 0.8, 0.5]}, {"sigmas": [0.7, 0.3, 0]}],
    "reused": [{"steps": 6, "reuse": [2, 3]}],
    "enlarged": [{"scale": 0.5, "sigmas": [1, 0.9, 0.8]}, {"resample": "dct", "sigmas": [8 / 9, 0.5, 0]}],
}


@pytest.mark.parametrize("variance", sorted({variance for variance, _ in BANDS}))
@pytest.mark.parametrize("solver", available())
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_spread_of_what_is_sampled_is_what_is_predicted(name: str, solver: str, variance: float) -> None:
    schedule = Schedule.model_validate({"stages": SCHEDULES[name], "solver": solver})
    model = WhiteData(variance)
    latents = sample(model, schedule, model.encode(["a"] * 8), range(8), (4 * SIDE, 4 * SIDE))
    spectrum = dctn(latents.numpy().astype(float), axes=(-2, -1), norm="ortho")
    low = np.maximum(*np.mgrid[:SIDE, :SIDE]) / SIDE < 0.5
    spreads = {True: spectrum[..., low].std(), False: spectrum[..., ~low].std()}
    made = [spreads[frequency < 0.5] for known, frequency in BANDS if known == variance]
    errors = abs(1 - np.array(made) / variance**0.5)
    predicted = np.sqrt(distances(schedule)[np.equal(VARIANCES, variance)])
    assert predicted == pytest.approx(errors, abs=0.02)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_errors_vanish_with_the_order_of_the_solver(solver: str, order: int) -> None:
    steps = np.array([64, 128, 256])
    # Evenly down to a level so low that the last step, which is Euler's, does not show.
    grids = [(*np.linspace(1, 1e-3, n), 1e-4, 0.0) for n in steps]
    schedules = [Schedule.model_validate({"stages": [{"sigmas": grid}], "solver": solver}) for grid in grids]
    errors = [np.sqrt(distances(schedule)).mean() for schedule in schedules]
    assert np.polyfit(np.log(1 / steps), np.log(errors), 1)[0] == pytest.approx(order, abs=0.2)


def test_a_single_step_leaves_nothing_of_the_spread() -> None:
    assert distances(Schedule(stages=(Stage(steps=1),))) == pytest.approx(1)


@given(scale=st.sampled_from([0.25, 0.5, 0.75]))
def test_what_a_small_stage_lacks_stays_away_when_nothing_is_renoised(scale: float) -> None:
    stages = (Stage(scale=scale, steps=200), Stage(sigmas=(1e-3, 0)))
    lacking = np.greater(FREQUENCIES, scale)
    found = distances(Schedule(stages=stages))
    assert found[lacking] == pytest.approx(1, abs=0.01)
    assert found[~lacking] == pytest.approx(0, abs=0.02)


def test_more_renoising_makes_good_what_a_small_stage_lacks() -> None:
    found = [
        distances(Schedule(stages=(Stage(scale=0.5, steps=50), Stage(steps=50, strength=strength)))).mean()
        for strength in (0.1, 0.3, 0.6, 0.9)
    ]
    assert found == sorted(found, reverse=True)
    assert found[-1] < 0.1 * found[0]
