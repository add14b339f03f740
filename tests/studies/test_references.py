from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FixedTrial

import search_spaces
import studies.plan.references
from search_spaces._staged import alike
from studies.plan.references import reductions, references, suits
from tests.blueprints import small_blueprint
from tests.studies.toy import TOY
from tuner import presets
from tuner.budget import parse_budget
from tuner.flops import price
from tuner.models import Blueprint, blueprint
from tuner.schedule import Schedule, Stage

MODEL = small_blueprint()
BASELINE = price(MODEL.baseline(), MODEL)
PUBLISHED = presets.load("bottleneck-flux-3x").schedule


@pytest.mark.parametrize("budget", ["1x", "1.9x", "3x", "12x", "49x", "50x", "40nfe", "20nfe", "3nfe", "1nfe"])
def test_every_reference_is_within_the_budget_and_enqueued_where_a_space_has_it(budget: str) -> None:
    limit = parse_budget(budget, BASELINE, MODEL, MODEL.size)
    found = references(MODEL, MODEL.size, limit)
    assert all(limit.allows(price(reference.schedule, MODEL)) for reference in found)
    hashes = [reference.schedule.content_hash for reference in found]
    assert len(set(hashes)) == len(hashes)
    bottlenecks = [reference for reference in found if "bottleneck" in reference.label]
    assert bool(bottlenecks) == (BASELINE.tflops / limit.tflops < 20)
    for name in ("free", "bottleneck"):
        space = search_spaces.load(name, MODEL, MODEL.size, limit)
        for reference in found:
            if not reference.label.startswith(("plain", "bottleneck")):
                continue  # the other methods have grids or ways to resize that no space proposes
            params = space.params_of(reference.schedule)
            assert alike(space.suggest(FixedTrial(params)), reference.schedule)


def test_plain_steps_of_a_multistep_rule_stand_beside_those_of_another_stock_solver() -> None:
    def labels(model: Blueprint) -> dict[str, Schedule]:
        limit = parse_budget("3x", price(model.baseline(), model), model, model.size)
        return {reference.label: reference.schedule for reference in references(model, model.size, limit)}

    found = labels(MODEL)
    assert {"plain:16-dpmpp-2m", "plain:8-dpmpp-2m", "plain:4-dpmpp-2m"} <= found.keys()
    assert "plain:2-dpmpp-2m" not in found
    for name in ("plain:16", "plain:16-dpmpp-2m"):
        assert presets.load(name, MODEL).schedule == found[name]
    assert found["plain:16-dpmpp-2m"].stages == found["plain:16"].stages
    sana = blueprint("sana")
    assert sana.solver == "dpmpp-2m"
    assert not any("dpmpp" in label for label in labels(sana))


def test_a_preset_that_fits_stays_as_it_is_and_a_dearer_one_is_rescaled() -> None:
    limit = parse_budget("3x", BASELINE, MODEL, MODEL.size)
    found = {reference.label: reference.schedule for reference in references(MODEL, MODEL.size, limit)}
    assert {"plain:16", "plain:8", "bottleneck-flux-2x-rescaled"} <= found.keys()
    rescaled = found["bottleneck-flux-2x-rescaled"]
    loose = references(MODEL, MODEL.size, parse_budget("1x", BASELINE, MODEL, MODEL.size))
    assert {"bottleneck-flux-2x", "bottleneck-flux-3x", "bottleneck-flux-5stage"} <= {r.label for r in loose}
    # The nearest larger one does not fit any more.
    larger = reductions(presets.load("bottleneck-flux-2x").schedule)
    before = larger[[schedule == rescaled for schedule in larger].index(True) - 1]
    assert not limit.allows(price(before, MODEL))


def test_fewer_steps_keep_stages_levels_and_shift() -> None:
    smaller = reductions(PUBLISHED)
    assert [schedule.steps for schedule in smaller] == sorted({s.steps for s in smaller}, reverse=True)
    assert [stage.steps for stage in smaller[-1].stages] == [1, 1, 1]
    half = next(schedule for schedule in smaller if schedule.stages[1].steps == 8)
    for ours, theirs in zip(half.stages, PUBLISHED.stages, strict=True):
        assert (ours.scale, ours.resample) == (theirs.scale, theirs.resample)
        assert (ours.sigmas[0], ours.sigmas[-1]) == (theirs.sigmas[0], theirs.sigmas[-1])
    # The second stage has 16 steps: half of them are every second level of the same shifted grid.
    assert half.stages[1].sigmas == pytest.approx(PUBLISHED.stages[1].sigmas[::2])


@given(
    levels=st.lists(st.floats(0.01, 0.99), min_size=1, max_size=12, unique=True),
    every=st.integers(1, 3),
    solver=st.sampled_from(["euler", "heun"]),
)
@settings(max_examples=50)
def test_any_schedule_can_be_reduced_step_by_step(levels: list[float], every: int, solver: str) -> None:
    sigmas = (1.0, *sorted(levels, reverse=True), 0.0)
    reuse = tuple(range(every, len(sigmas) - 1, every + 1))
    stage = Stage(sigmas=sigmas, reuse=reuse)
    schedule = Schedule.model_validate({"stages": [stage], "solver": solver})
    smaller = reductions(schedule)
    assert [found.steps for found in smaller] == list(range(stage.steps - 1, 0, -1))
    assert all(found.solver == solver for found in smaller)
    assert all(len(found.stages[0].reuse) < found.steps for found in smaller)


def test_presets_suit_their_family_and_those_of_any_model_suit_all(monkeypatch: pytest.MonkeyPatch) -> None:
    preset = presets.load("bottleneck-flux-3x")
    assert suits(preset, MODEL)
    assert not suits(preset, TOY)
    assert suits(preset.model_copy(update={"model": "any"}), TOY)
    assert not suits(preset.model_copy(update={"model": "not-installed"}), MODEL)


def test_the_baseline_is_no_reference() -> None:
    one = replace(MODEL, steps=1)
    limit = parse_budget("1x", price(one.baseline(), one), one, one.size)
    assert one.baseline() not in [
        reference.schedule for reference in studies.plan.references.references(one, one.size, limit)
    ]


def test_a_preset_with_fewer_steps_keeps_what_its_stages_ask_for() -> None:
    first = Stage(scale=0.5, steps=6, solver="ab2", guidance=2.0, guide=(0.9, 0.5))
    last = Stage(steps=6, strength=0.6, resample="lanczos")
    for fewer in reductions(Schedule(stages=(first, last), solver="unipc")):
        assert fewer.solver == "unipc"
        stage = fewer.stages[0]
        assert (stage.solver, stage.guidance, stage.guide) == ("ab2", 2.0, (0.9, 0.5))
        assert fewer.stages[1].resample == "lanczos"
