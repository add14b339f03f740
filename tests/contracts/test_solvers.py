"""What every registered solver must do, whatever its rule."""

from __future__ import annotations

import inspect
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.gaussian import exact_velocity
from tests.studies.toy import ToyModel
from tuner.flops import price
from tuner.sampling import sample, step_seeds
from tuner.schedule import Schedule, Stage
from tuner.solvers import (
    available,
    call_sigmas,
    calls_once_per_step,
    draws_noise,
    load,
    network_calls,
    remembers,
    solve,
)

SIZE = (256, 256)
levels = st.sets(st.integers(1, 199), min_size=1, max_size=20).map(
    lambda found: (1.0, *(level / 200 for level in sorted(found, reverse=True)), 0.0)
)

pytestmark = pytest.mark.parametrize("name", available())


class Counted(ToyModel):
    """The exact velocity of Gaussian data; remembers at which levels it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.called: list[float] = []

    def velocity(self, x_BCHW: torch.Tensor, sigma: float, conditioning: Any) -> torch.Tensor:
        self.called.append(sigma)
        velocity: torch.Tensor = exact_velocity(x_BCHW, sigma, 0.3)
        return velocity


def no_noise(step: int) -> float:
    return 0.0


@given(data=st.floats(-3, 3), noise=st.floats(-3, 3), sigmas=levels)
def test_it_is_exact_on_a_straight_flow(name: str, data: float, noise: float, sigmas: tuple[float, ...]) -> None:
    # Fresh noise comes in with what leads from it to the data, so that only the end is the same.
    path = (lambda x, sigma: (x - data) / sigma) if draws_noise(name) else (lambda x, sigma: noise - data)
    assert solve(name, path, noise, sigmas, lambda step: 1.5) == pytest.approx(data, abs=1e-9)


@given(sigmas=levels)
def test_the_last_step_to_zero_gives_the_clean_prediction(name: str, sigmas: tuple[float, ...]) -> None:
    predicted: dict[float, float] = {}

    def velocity(x: float, sigma: float) -> float:
        found: float = exact_velocity(x, sigma, 0.3)
        predicted[sigma] = x - sigma * found
        return found

    end = solve(name, velocity, 0.7, sigmas, lambda step: 0.2)
    assert np.isfinite(end)
    if name != "ab2":  # which extrapolates velocities, to 0 as elsewhere
        assert end == pytest.approx(predicted[sigmas[-2]], abs=1e-9)


@given(sigmas=levels, data=st.data())
def test_what_it_calls_is_what_it_is_counted_to_call(name: str, sigmas: tuple[float, ...], data: Any) -> None:
    reuse = tuple(k for k in range(1, len(sigmas) - 1) if data.draw(st.booleans()))
    model, schedule = Counted(), Schedule(stages=(Stage(sigmas=sigmas, reuse=reuse),), solver=name)
    latents = sample(model, schedule, model.encode(["a"]), [1], SIZE)
    assert latents.isfinite().all()
    assert model.called == call_sigmas(name, sigmas, reuse)
    assert len(model.called) == network_calls(name, sigmas, reuse)


def test_numbers_arrays_and_tensors_move_alike(name: str) -> None:
    sigmas = (1.0, 0.8, 0.5, 0.2, 0.0)

    def run(x: Any) -> Any:
        return solve(name, lambda x, sigma: exact_velocity(x, sigma, 0.3), x, sigmas, lambda step: x * 0 + step)

    moved = run(np.array([0.5, -1.0]))
    assert moved == pytest.approx([run(0.5), run(-1.0)])
    np.testing.assert_allclose(run(torch.tensor([0.5, -1.0], dtype=torch.float64)), moved)


def test_an_image_depends_on_its_own_seed_alone(name: str) -> None:
    model = Counted()
    stages = (Stage(scale=0.5, sigmas=(1, 0.8, 0.5, 0.2)), Stage(sigmas=(0.6, 0.4, 0.2, 0)))
    schedule = Schedule(stages=stages, solver=name)
    together = sample(model, schedule, model.encode(["a"] * 3), [5, 6, 5], SIZE)
    alone = sample(model, schedule, model.encode(["a"]), [6], SIZE)
    assert torch.equal(together[0], together[2])
    assert torch.equal(together[1:2], alone)
    assert not torch.equal(together[0], together[1])


def test_noise_differs_between_images_stages_and_steps(name: str) -> None:
    keys = list(itertools.product((1, 2), (0, 1), (0, 1)))
    drawn = {step_seeds([seed], stage, step)[0] for seed, stage, step in keys}
    assert len(drawn) == len(keys)
    alike = Schedule(stages=(Stage(sigmas=(1, 0.6, 0.3)), Stage(sigmas=(0.3, 0.1, 0))), solver=name)
    model = Counted()
    first, second = (sample(model, alike, model.encode(["a"]), [seed], SIZE) for seed in (1, 1))
    assert torch.equal(first, second)


def test_a_stage_may_name_it_and_is_priced_by_it(name: str) -> None:
    model = Counted()
    stages = [{"sigmas": [1, 0.6, 0.3, 0]}, {"sigmas": [0.5, 0.3, 0.1, 0]}]
    everywhere = Schedule.model_validate({"stages": stages, "solver": name})
    second = Schedule.model_validate({"stages": [stages[0], {**stages[1], "solver": name}]})
    assert second.solver_of(0) == "euler"
    assert second.solver_of(1) == name
    calls = [stage.calls for stage in price(second, model.blueprint, SIZE).stages]
    assert calls == [3, network_calls(name, stages[1]["sigmas"])]
    sample(model, second, model.encode(["a"]), [1], SIZE)
    assert len(model.called) == sum(calls)
    if name != "euler":
        assert second.model_dump()["stages"][0]["solver"] == "euler"
        assert "solver" not in everywhere.model_dump()["stages"][0]
        assert everywhere.content_hash != second.content_hash


def test_it_takes_what_fits_its_kind(name: str) -> None:
    stage = {"steps": 3, "amplitudes": [[-1, 1]] * 3}
    if remembers(name) or draws_noise(name):
        with pytest.raises(ValueError, match=f"solver '{name}' does not expect"):
            Schedule.model_validate({"stages": [stage], "solver": name})
    else:
        Schedule.model_validate({"stages": [stage], "solver": name})
    cached = {"stages": [{"steps": 3}], "solver": name, "cache": {"kind": "first_block"}}
    if calls_once_per_step(name):
        Schedule.model_validate(cached)
    else:
        with pytest.raises(ValueError, match="one network call per step"):
            Schedule.model_validate(cached)


def test_its_docstring_says_order_names_and_source(name: str) -> None:
    text = inspect.getdoc(load(name)) or ""
    assert "rder " in text
    assert "lso known as" in text
    assert "(diffusers" in text
    assert name == "euler" or "Source" in text
