"""Feature caches that the free space proposes: bought at what they cost, and only where they save something."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import FixedTrial

from search_spaces._costs import Costs, Ladder
from search_spaces.free import Free
from search_spaces.progressive import Progressive
from tests.blueprints import small_blueprint
from tuner.budget import Budget
from tuner.feature_cache import PyramidAttentionBroadcast, TaylorSeerCache
from tuner.flops import price, tflops_of_calls, tflops_per_call
from tuner.models import Blueprint, blueprint
from tuner.schedule import Schedule

SIZE = (128, 128)
STEP = tflops_per_call(small_blueprint(), SIZE)
ONE_STAGE = {
    "reuse": 1,
    "stages": 1,
    "spend": 1.0,
    "stage1.shift": 2.0,
    "solver": "euler",
    "own_guidance": False,
}
KINDS = ["taylorseer", "taylorseer-lite", "pab"]


def suggest(steps: float, **params: Any) -> Schedule:
    named = {name.replace("_", "."): value for name, value in params.items()}
    return Free(small_blueprint(), SIZE, Budget(steps * STEP)).suggest(FixedTrial(ONE_STAGE | named))


def small(model: str) -> Blueprint:
    """A model with one block of each kind."""
    few = {"num_layers": 1, "num_single_layers": 1, "num_attention_heads": 2, "attention_head_dim": 16}
    few |= {"joint_attention_dim": 32, "axes_dims_rope": (4, 6, 6), "dual_attention_layers": ()}
    few |= {"caption_projection_dim": 32, "pooled_projection_dim": 24}
    known = blueprint(model)
    kept = {name: few.get(name, value) for name, value in known.transformer.items()}
    return replace(known, transformer=kept, height=128, width=128, text_tokens=8)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_cache_saves_buys_steps(kind: str) -> None:
    plain = suggest(8, cache="none")
    cached = suggest(8, cache=kind, cache_interval=3, cache_warmup=2, cache_order=1)
    cost = price(cached, small_blueprint()).tflops
    assert cached.steps > plain.steps == 8
    # A step more is a full one or a shortened one, so the spend is met to half of a full one.
    assert 7.5 * STEP <= cost <= 8 * STEP * (1 + 1e-9)


@pytest.mark.parametrize(
    "cache",
    [
        None,
        TaylorSeerCache(kind="taylorseer", interval=3, warmup=2),
        TaylorSeerCache(kind="taylorseer", interval=6, warmup=1, lite=True),
        PyramidAttentionBroadcast(kind="pab"),
    ],
)
@pytest.mark.parametrize("every", [1, 3])
def test_of_what_a_stage_may_run_the_nearest_to_a_cost_is_found(cache: Any, every: int) -> None:
    costs = Costs.of(small_blueprint(), SIZE, Budget(20 * STEP))
    ladder = Ladder(costs, 0.5, every, cache)
    rungs = [ladder[index] for index in range(len(ladder))]
    assert all(one.cost < other.cost for one, other in itertools.pairwise(rungs))
    for cost in np.linspace(0, 1.1 * rungs[-1].cost, 37):
        assert ladder.nearest(cost) == int(np.argmin([abs(rung.cost - cost) for rung in rungs]))


def test_calls_of_the_warm_up_are_paid_in_full() -> None:
    probe = TaylorSeerCache(kind="taylorseer", warmup=1)
    shortened = tflops_of_calls(small_blueprint(), SIZE, [0.5] * 2, probe) - STEP
    assert 0.1 * STEP < shortened < 0.9 * STEP
    late = suggest(7, cache="taylorseer", cache_interval=6, cache_warmup=4, cache_order=0)
    # Four calls warm up, and of the next six the second is full.
    assert 6 <= late.steps < 12
    assert price(late, small_blueprint()).tflops == pytest.approx(5 * STEP + (late.steps - 5) * shortened)


def test_a_cache_that_shortens_no_call_is_none() -> None:
    schedule = suggest(3, cache="taylorseer", cache_interval=2, cache_warmup=4, cache_order=1)
    assert (schedule.steps, schedule.cache) == (3, None)


@pytest.mark.parametrize(
    ("model", "limit", "kinds"),
    [
        ("flux", {}, KINDS),
        ("flux", {"nfe": 16}, []),
        (
            "chroma",
            {},
            ["taylorseer", "taylorseer-lite"],
        ),  # repeating attention would mix its two guidance passes
        ("sd3.5-medium", {}, []),
    ],
)
def test_only_caches_that_save_something_and_work_are_proposed(
    model: str, limit: dict[str, int], kinds: list[str]
) -> None:
    known = small(model)
    space = Free(known, SIZE, Budget(16 * tflops_per_call(known, SIZE), **limit))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    proposed = set()
    for _ in range(40):
        trial = study.ask()
        space.suggest(trial)
        proposed.add(trial.params.get("cache", "nothing asked"))
    assert proposed == ({"none", *kinds} if kinds else {"nothing asked"})


@pytest.mark.parametrize(
    "cache",
    [
        {"kind": "first_block"},
        {"kind": "mag", "ratios": [(0.5, 1.0)]},
        {"kind": "pab"},
        {"kind": "pab", "spatial": 2, "cross": 2, "between": (0, 1)},
        {"kind": "taylorseer", "interval": 7},
    ],
)
def test_a_cache_that_is_not_proposed_is_refused_with_the_reason(cache: dict[str, Any]) -> None:
    schedule = Schedule.model_validate({"stages": [{"steps": 8}], "cache": cache})
    with pytest.raises(ValueError, match=r"its cache .* is none that this space proposes"):
        Free(small_blueprint(), SIZE, Budget(16 * STEP)).params_of(schedule)
    with pytest.raises(ValueError, match="its cache"):
        Progressive(small_blueprint(), SIZE, Budget(16 * STEP)).params_of(schedule)
