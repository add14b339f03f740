from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tuner.distill.oss import retime, search, search_each
from tuner.distill.steps import Aggregate, Settings
from tuner.errors import UserError
from tuner.models import FlowModel, wrap
from tuner.sampling import QUANTILES, calibrate, sample
from tuner.schedule import Schedule, Stage

PROMPTS = ["a red fox", "a blue circle", "fox"]
SEEDS = [1, 2, 3]
SIZE = (32, 32)


@pytest.fixture(scope="module")
def model(flux_pipe: Any) -> FlowModel:
    return wrap(flux_pipe)


def test_one_table_yields_every_number_of_steps(model: FlowModel) -> None:
    settings = Settings(teacher_steps=8, batch=2)
    result = search(model, PROMPTS, SEEDS, [2, 3, 8], SIZE, settings)
    teacher = model.blueprint.sigmas(8, SIZE)
    assert list(result.schedules) == [2, 3, 8]
    assert result.schedules[8].stages[0].sigmas == teacher
    for steps, schedule in result.schedules.items():
        assert schedule.steps == steps
        assert set(schedule.stages[0].sigmas) <= set(teacher)
        ours = sample(model, schedule, model.encode(PROMPTS), SEEDS, SIZE)
        full = sample(model, model.blueprint.plain(8, SIZE), model.encode(PROMPTS), SEEDS, SIZE)
        assert result.costs[steps] == pytest.approx(float((ours - full).square().mean()), rel=1e-3, abs=1e-9)
    alone = search(model, PROMPTS, SEEDS, [3], SIZE, settings)
    assert alone.schedules[3] == result.schedules[3]


def test_the_mean_cost_schedule_is_no_worse_than_the_stock_grid(model: FlowModel) -> None:
    result = search(model, PROMPTS, SEEDS, [4], SIZE, Settings(teacher_steps=8))
    encoded = model.encode(PROMPTS)
    full = sample(model, model.blueprint.plain(8, SIZE), encoded, SEEDS, SIZE)
    every_second = Schedule(stages=(Stage(sigmas=model.blueprint.sigmas(8, SIZE)[::2]),))
    stock = sample(model, every_second, encoded, SEEDS, SIZE)
    assert result.costs[4] <= float((stock - full).square().mean())


def test_coarse_to_fine_calls_the_network_less_often(model: FlowModel) -> None:
    whole = search(model, PROMPTS[:1], SEEDS[:1], [4], SIZE, Settings(teacher_steps=100, distance="x_t"))
    fine = search(
        model, PROMPTS[:1], SEEDS[:1], [4], SIZE, Settings(teacher_steps=100, coarse_to_fine=True, distance="x_t")
    )
    assert (fine.images - 100) * 4 <= whole.images - 100
    assert fine.schedules[4].steps == 4


@pytest.mark.parametrize("aggregate", ["mean-cost", "mean-log"])
def test_polishing_comes_nearer_to_the_teacher_and_never_less_near(model: FlowModel, aggregate: Aggregate) -> None:
    settings = Settings(teacher_steps=12, aggregate=aggregate, coarse_to_fine=True)
    rough = search(model, PROMPTS[:1], SEEDS[:1], [2, 3, 4], SIZE, settings)
    fine = search(model, PROMPTS[:1], SEEDS[:1], [2, 3, 4], SIZE, replace(settings, polish=True))
    assert all(fine.costs[steps] <= rough.costs[steps] for steps in (2, 3, 4))
    assert min(fine.costs[steps] / rough.costs[steps] for steps in (2, 3, 4)) < 1


def test_progress_ends_at_the_calls_that_were_foretold(model: FlowModel) -> None:
    seen: list[tuple[int, int | None]] = []
    settings = Settings(teacher_steps=6, batch=2, distance="x_t")
    staged = Schedule(stages=(Stage(scale=0.5, steps=2), Stage(sigmas=(0.8, 0.2, 0))))
    runs = [
        lambda: search(model, PROMPTS, SEEDS, [2, 4], SIZE, settings, lambda *at: seen.append(at)),
        lambda: retime(model, PROMPTS, SEEDS, staged, SIZE, settings, lambda *at: seen.append(at)),
    ]
    for run in runs:
        seen.clear()
        images = run().images
        assert seen[-1] == (images, images)
        assert [done for done, _ in seen] == sorted({done for done, _ in seen})
        assert {total for _, total in seen} == {images}
    seen.clear()
    search(model, PROMPTS, SEEDS, [2], SIZE, replace(settings, polish=True), lambda *at: seen.append(at))
    assert {total for _, total in seen} == {None}


def test_retiming_keeps_what_the_stages_are(model: FlowModel) -> None:
    staged = Schedule(
        stages=(
            Stage(scale=0.5, steps=2, shift=3),
            Stage(scale=1, steps=4, strength=0.5, shift=3, resample="lanczos"),
        )
    )
    settings = Settings(teacher_steps=12, aggregate="median", calibrate=True)
    (retimed,) = retime(model, PROMPTS, SEEDS, staged, SIZE, settings).schedules.values()
    for before, after in zip(staged.stages, retimed.stages, strict=True):
        assert (after.scale, after.steps, after.resample) == (before.scale, before.steps, before.resample)
        assert (after.sigmas[0], after.sigmas[-1]) == (before.sigmas[0], before.sigmas[-1])
        assert len(after.amplitudes) == after.steps
    assert retimed != staged
    assert Schedule.model_validate_json(retimed.model_dump_json()) == retimed


def test_calibration_gives_each_latent_the_wanted_quantiles_and_changes_nothing_else(model: FlowModel) -> None:
    x = torch.randn(3, 2, 9, 9, generator=torch.Generator().manual_seed(0))
    y = calibrate(x, (-1.5, 2.0))
    quantiles = y.flatten(1).quantile(torch.tensor(QUANTILES), dim=1)
    torch.testing.assert_close(quantiles, torch.tensor([[-1.5] * 3, [2.0] * 3]))
    assert torch.equal(y.flatten(1).argsort(dim=1), x.flatten(1).argsort(dim=1))
    plain = Schedule(stages=(Stage(sigmas=(1, 0.5, 0)),))
    calibrated = Schedule(stages=(Stage(sigmas=(1, 0.5, 0), amplitudes=((-1, 1), (-2, 2))),))
    assert "amplitudes" not in plain.model_dump_json()
    assert plain.content_hash != calibrated.content_hash
    one, other = (sample(model, each, model.encode(PROMPTS), SEEDS, SIZE) for each in (plain, calibrated))
    assert not torch.allclose(one, other)


def test_what_cannot_be_searched_is_a_user_error(model: FlowModel) -> None:
    with pytest.raises(UserError, match="teacher of 4 steps has no schedule of 5"):
        search(model, PROMPTS, SEEDS, [5], SIZE, Settings(teacher_steps=4))
    reusing = Schedule(stages=(Stage(sigmas=(1, 0.5, 0), reuse=(1,)),))
    with pytest.raises(UserError, match="Stage 1 reuses velocities"):
        retime(model, PROMPTS, SEEDS, reusing, SIZE, Settings(teacher_steps=4))


@pytest.mark.parametrize(
    ("amplitudes", "rule"), [(((0, 1),), "one pair for each of 2 steps"), (((0, 1), (1, 1)), "low < high")]
)
def test_amplitudes_are_checked(amplitudes: Any, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        Stage(sigmas=(1, 0.5, 0), amplitudes=amplitudes)


@pytest.mark.parametrize("solver", ["dpmpp-2m", "unipc", "ab2"])
def test_multistep_schedules_end_where_the_search_says(model: FlowModel, solver: str) -> None:
    settings = Settings(teacher_steps=9, solver=solver)
    result = search(model, PROMPTS, SEEDS, [4], SIZE, settings)
    full = sample(model, model.blueprint.plain(9, SIZE), model.encode(PROMPTS), SEEDS, SIZE)
    ours = sample(model, result.schedules[4], model.encode(PROMPTS), SEEDS, SIZE)
    assert result.schedules[4].solver == solver
    assert result.costs[4] == pytest.approx(float((ours - full).square().mean()), rel=1e-3)


def test_what_a_multistep_rule_cannot_do_is_a_user_error(model: FlowModel) -> None:
    with pytest.raises(UserError, match="cannot step by 'unipc-3'"):
        search(model, PROMPTS, SEEDS, [2], SIZE, Settings(teacher_steps=4, solver="unipc-3"))
    with pytest.raises(UserError, match="'dpmpp-2m' remembers earlier steps; use 'euler' or 'heun'"):
        search(model, PROMPTS, SEEDS, [2], SIZE, Settings(teacher_steps=4, solver="dpmpp-2m", calibrate=True))


def test_the_schedules_of_single_prompts_are_those_of_searches_on_them_alone(model: FlowModel) -> None:
    settings = Settings(teacher_steps=9)
    each = search_each(model, PROMPTS, SEEDS, 3, SIZE, settings)
    for schedule, prompt, seed in zip(each, PROMPTS, SEEDS, strict=True):
        assert search(model, [prompt], [seed], [3], SIZE, settings).schedules[3] == schedule


def test_a_stage_is_retimed_for_its_own_multistep_solver(model: FlowModel) -> None:
    staged = Schedule(
        stages=(
            Stage(scale=0.5, sigmas=(1, 0.7, 0.5, 0.2), solver="dpmpp-2m"),
            Stage(sigmas=(0.8, 0.6, 0.4, 0.2, 0)),
        ),
        solver="unipc",
    )
    result = retime(model, PROMPTS, SEEDS, staged, SIZE, Settings(teacher_steps=12))
    retimed = result.schedules[staged.steps]
    assert [retimed.solver_of(index) for index in (0, 1)] == ["dpmpp-2m", "unipc"]
    assert [stage.sigmas[-1] for stage in retimed.stages] == [0.2, 0]
    teacher = Schedule(stages=(retimed.stages[0], Stage(sigmas=_inside(model, 0.8))), solver="euler")
    ours, full = (sample(model, one, model.encode(PROMPTS), SEEDS, SIZE) for one in (retimed, teacher))
    assert result.costs[staged.steps] == pytest.approx(float((ours - full).square().mean()), rel=1e-3)


def _inside(model: FlowModel, high: float) -> tuple[float, ...]:
    return (high, *(level for level in model.blueprint.sigmas(12, SIZE) if level < high))
