"""Theory: the slope of the error is the solver's order. And every scheduler of diffusers equals one of ours."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.gaussian import exact_velocity
from tests.stock_steps import STOCK, walked_by_diffusers
from tuner.errors import UserError
from tuner.schedule import Schedule
from tuner.solvers import available, load, network_calls, reusing, solve
from tuner.solvers.euler import euler

ORDERS = {
    "euler": 1,
    "heun": 2,
    "ab2": 2,
    "dpmpp-2m": 2,
    "dpmpp-3m": 2,  # as its docstring says
    "res-2m": 2,
    "deis-2": 2,
    "unipc": 3,
    "unipc-3": 4,
    "euler-ancestral": 1,
    "dpmpp-2m-sde": 2,
}


def std(sigma: float, variance: float) -> float:
    return math.hypot((1 - sigma) * math.sqrt(variance), sigma)


def grid(steps: int) -> list[float]:
    """From 0.9 to 0.1, evenly in lambda, with small steps at both ends, so that their lower orders do not show."""
    h = 1 / steps
    ends = np.cumsum([h**4, h**2, h**1.5])
    inner = np.linspace(ends[-1], 1 - ends[-1], steps)
    parts = np.concatenate([[0.0], ends[:-1], inner, 1 - ends[:-1][::-1], [1.0]])
    lambdas = math.log(0.1 / 0.9) * (1 - 2 * parts)
    return [1 / (1 + math.exp(value)) for value in lambdas]


def spread(name: str, velocity: Callable[[Any, float], Any], start: float, sigmas: Sequence[float]) -> float:
    """Standard deviation that a linear flow ends with: the parts of start and noises are carried side by side."""
    parts = np.eye(len(sigmas))
    return math.hypot(*solve(name, velocity, start * parts[0], sigmas, lambda step: parts[1 + step]))


@pytest.mark.parametrize("variance", [0.25, 1e-2, 30.0])
@pytest.mark.parametrize("name", available())
def test_the_order_on_a_gaussian_model(name: str, variance: float) -> None:
    def error(steps: int) -> float:
        sigmas = grid(steps)
        end, start = std(sigmas[-1], variance), std(sigmas[0], variance)
        return abs(spread(name, lambda x, sigma: exact_velocity(x, sigma, variance), start, sigmas) / end - 1)

    slope = math.log(error(64) / error(128)) / math.log(2)
    assert slope == pytest.approx(ORDERS[name], abs=0.35)


def test_an_unknown_solver_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"Unknown solver 'dpm-2m'\. Did you mean 'dpmpp-2m'"):
        load("dpm-2m")
    with pytest.raises(ValueError, match="Did you mean 'unipc'"):
        Schedule.model_validate({"stages": [{"steps": 2, "solver": "uni_pc"}]})


def test_a_stage_that_names_the_schedule_s_solver_names_none() -> None:
    stages = [{"steps": 3}, {"steps": 3, "strength": 0.5, "solver": "heun"}]
    explicit = Schedule.model_validate(
        {"stages": [{**stages[0], "solver": "euler"}, stages[1]], "solver": "euler"}
    )
    assert explicit == Schedule.model_validate({"stages": stages})
    assert explicit.content_hash == Schedule.model_validate({"stages": stages}).content_hash


def test_an_euler_step_to_zero_is_the_clean_prediction() -> None:
    x, sigma, velocity = 0.8, 0.6, 0.3
    assert euler(lambda *_: velocity, x, (sigma, 0.0)) == pytest.approx(x - sigma * velocity)


def test_heun_calls_twice_but_for_the_step_to_zero() -> None:
    assert network_calls("heun", (1.0, 0.75, 0.5, 0.25, 0.0)) == 7
    assert network_calls("heun", (1.0, 0.75, 0.5, 0.25)) == 6


def test_a_step_that_reuses_a_velocity_calls_nothing_and_follows_the_last_one() -> None:
    sigmas = (1.0, 0.8, 0.5, 0.2, 0.0)
    called: list[float] = []

    def velocity(x: float, sigma: float) -> float:
        called.append(sigma)
        return sigma

    end = euler(reusing(velocity, sigmas, (1, 2)), 0.0, sigmas)

    assert called == [1.0, 0.2]
    assert end == pytest.approx(-0.8 * 1.0 - 0.2 * 0.2)
    assert network_calls("euler", sigmas, (1, 2)) == 2
    assert network_calls("heun", sigmas) - network_calls("heun", sigmas, (1,)) == 2


@pytest.mark.parametrize("name", ["euler-ancestral", "dpmpp-2m-sde"])
@given(low=st.floats(1e-4, 0.2))
def test_stochastic_solvers_keep_the_noise_level(name: str, low: float) -> None:
    """On data that is one point, 0, a latent is unit noise times sigma, whatever the steps."""
    made = spread(name, lambda x, sigma: x / sigma, 1.0, (1.0, 1 - low, 0.5, low))
    assert made == pytest.approx(low, rel=1e-6)


def ends(name: str) -> list[tuple[float, float]]:
    """First and last levels that the scheduler can run: DEIS's divides by 0, Heun's makes half a step above 0."""
    every = [(1.0, 0.0), (0.97, 0.0), (1.0, 0.15), (0.97, 0.15)]
    return {"deis-2": [(0.97, 0.15)], "heun": every[:2]}.get(name, every)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", [1, 2, 3, 6, 20])
@pytest.mark.parametrize(("name", "start", "end"), [(name, *pair) for name in STOCK for pair in ends(name)])
def test_it_equals_diffusers(name: str, start: float, end: float, steps: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(steps + 1, 2, 1, 4, 4, generator=generator, dtype=dtype)
    sigmas = np.linspace(start, end, steps + 1).tolist()

    def velocity(x: torch.Tensor, sigma: float) -> torch.Tensor:
        found: torch.Tensor = exact_velocity(x, sigma, 0.3) + 0.2 * torch.sin(4 * x)
        return found

    def noise(step: int) -> torch.Tensor:
        return draws[1 + step]

    ours = solve(name, velocity, draws[0], sigmas, noise)
    theirs = walked_by_diffusers(name, velocity, draws[0], sigmas, noise)
    torch.testing.assert_close(ours.double(), theirs.double(), rtol=0, atol=1e-4)
