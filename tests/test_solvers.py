"""Theory: the error's slope against the step size is the solver's order; on straight flows Euler is exact."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.gaussian import exact_velocity
from tuner.solvers import SOLVERS, euler, network_calls, reusing

DATA_STD = 0.5
ORDERS = {"euler": 1, "heun": 2}


def gaussian_velocity(x: float, sigma: float) -> float:
    velocity: float = exact_velocity(x, sigma, DATA_STD**2)
    return velocity


def gaussian_solution(x: float, sigma: float, sigma_next: float) -> float:
    def std(level: float) -> float:
        return math.hypot((1 - level) * DATA_STD, level)

    return x * std(sigma_next) / std(sigma)


@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_the_order_on_a_gaussian_model(name: str) -> None:
    counts = np.array([16, 32, 64, 128])
    # From 1 to 0.1 rather than to 0: Heun's last step to 0 is Euler's and would hide its order.
    errors = [
        abs(SOLVERS[name](gaussian_velocity, 1.3, np.linspace(1, 0.1, n + 1)) - gaussian_solution(1.3, 1, 0.1))
        for n in counts
    ]
    slope = np.polyfit(np.log(1 / counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(ORDERS[name], abs=0.15)


@given(data=st.floats(-3, 3), noise=st.floats(-3, 3), levels=st.sets(st.floats(0.01, 0.99), max_size=5))
def test_every_solver_is_exact_on_a_straight_flow(data: float, noise: float, levels: set[float]) -> None:
    sigmas = (1.0, *sorted(levels, reverse=True), 0.0)
    for solver in SOLVERS.values():
        assert solver(lambda x, sigma: noise - data, noise, sigmas) == pytest.approx(data, abs=1e-9)


def test_an_euler_step_to_zero_is_the_clean_prediction() -> None:
    x, sigma, velocity = 0.8, 0.6, 0.3
    assert euler(lambda *_: velocity, x, (sigma, 0.0)) == pytest.approx(x - sigma * velocity)


@pytest.mark.parametrize(("name", "calls"), [("euler", 4), ("heun", 7)])
def test_network_calls(name: str, calls: int) -> None:
    # Heun: two calls per step, one for the step that ends at 0.
    assert network_calls(name, (1.0, 0.75, 0.5, 0.25, 0.0)) == calls


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
