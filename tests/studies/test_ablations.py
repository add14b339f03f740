from __future__ import annotations

import pytest

from studies.evaluate.ablations import WHOLE, bottleneck_ablations, run_ablations
from tests.studies.toy import TOY, load_toy
from tuner import presets
from tuner.errors import UserError
from tuner.flops import price
from tuner.models import blueprint
from tuner.schedule import Schedule, Stage

SIZE = (32, 32)


@pytest.fixture(scope="module")
def ablated() -> dict[str, Schedule]:
    return bottleneck_ablations(presets.load("bottleneck-flux-3x").schedule, blueprint("flux"), (1024, 1024))


def test_every_part_is_taken_out_once(ablated: dict[str, Schedule]) -> None:
    assert list(ablated) == [
        WHOLE,
        "baseline",
        "plain:16",
        "without re-shifting",
        "without renoising",
        "one continuous grid",
        "without the first stage",
        "five stages",
        "nearest resampling",
        "bilinear resampling",
        "bicubic resampling",
    ]
    assert len({schedule.content_hash for schedule in ablated.values()}) == len(ablated)


def test_without_reshifting_the_models_own_shift_is_used(ablated: dict[str, Schedule]) -> None:
    whole, changed = ablated[WHOLE].stages, ablated["without re-shifting"].stages
    # Before shifting, the second stage of the preset starts at 1 - 4 / 20; FLUX's shift at 1024 is exp(1.15).
    sigma = changed[1].sigmas[0]
    assert sigma / (1 - sigma) == pytest.approx(4 * 2.718281828**1.15)
    assert [stage.steps for stage in changed] == [stage.steps for stage in whole]


def test_without_renoising_every_stage_starts_where_the_last_one_ended(ablated: dict[str, Schedule]) -> None:
    whole, cascade = ablated[WHOLE].stages, ablated["without renoising"].stages
    assert [stage.steps for stage in cascade] == [stage.steps for stage in whole]
    assert [stage.sigmas[0] for stage in cascade] == [stage.sigmas[0] for stage in whole]
    assert [stage.sigmas[-1] for stage in cascade] == [whole[1].sigmas[0], whole[2].sigmas[0], 0]


def test_without_the_first_stage_the_second_starts_from_noise(ablated: dict[str, Schedule]) -> None:
    first, last = ablated["without the first stage"].stages
    assert (first.scale, first.sigmas[0], last.scale) == (0.5, 1, 1)
    assert last.sigmas[0] == pytest.approx(ablated[WHOLE].stages[2].sigmas[0])


def test_without_the_first_stage_the_cost_is_that_of_the_whole(ablated: dict[str, Schedule]) -> None:
    flux = blueprint("flux")
    whole, cascade = (price(ablated[name], flux).tflops for name in (WHOLE, "without the first stage"))
    one_step_more = price(flux.plain(1), flux).tflops + price(flux.plain(1), flux, (512, 512)).tflops
    assert whole - one_step_more < cascade <= whole


def test_one_continuous_grid_is_the_models_own(ablated: dict[str, Schedule]) -> None:
    stages = ablated["one continuous grid"].stages
    joined = [*stages[0].sigmas, *stages[1].sigmas[1:], *stages[2].sigmas[1:]]
    assert tuple(joined) == blueprint("flux").sigmas(27, (1024, 1024))
    assert [stage.steps for stage in stages] == [stage.steps for stage in ablated[WHOLE].stages]


def test_the_papers_values_stand_beside_ours(ablated: dict[str, Schedule]) -> None:
    rows = {row.name: row for row in run_ablations(load_toy(), TOY, ablated, ["a", "bb"], SIZE, batch=2)}
    assert rows["without re-shifting"].paper == {"clip": (0.276, -0.184), "image_reward": (0.781, -0.476)}
    assert rows["nearest resampling"].paper == {"clip": (0.461, 0.004), "image_reward": (1.249, -0.005)}
    assert rows["one continuous grid"].paper == {}


def test_rows_compare_with_the_whole_method_on_the_same_noise(ablated: dict[str, Schedule]) -> None:
    rows = run_ablations(load_toy(), TOY, ablated, ["a", "bb", "ccc"], SIZE, batch=2, seed=5)
    assert [row.name for row in rows] == list(ablated)
    assert set(rows[0].scores) == {"clip", "image_reward"}
    assert all((score.delta, score.ci95) == (0, (0, 0)) for score in rows[0].scores.values())
    assert all(row.scores["clip"].delta != 0 for row in rows[1:7])
    again = run_ablations(load_toy(), TOY, ablated, ["a", "bb", "ccc"], SIZE, batch=3, seed=5)
    assert [row.scores["clip"].mean for row in again] == pytest.approx([row.scores["clip"].mean for row in rows])


@pytest.mark.parametrize(
    ("stages", "rule"),
    [
        ((Stage(sigmas=(1, 0)),), "need a bottleneck"),
        (
            (Stage(sigmas=(1, 0)), Stage(scale=0.5, sigmas=(0.5, 0)), Stage(sigmas=(0.6, 0))),
            "no lower than the one before",
        ),
        (
            (Stage(sigmas=(1, 0)), Stage(scale=0.5, sigmas=(0.9, 0.5, 0.4, 0)), Stage(sigmas=(0.3, 0))),
            "no shifted grid",
        ),
    ],
)
def test_other_schedules_are_refused(stages: tuple[Stage, ...], rule: str) -> None:
    with pytest.raises(UserError, match=rule):
        bottleneck_ablations(Schedule(stages=stages), TOY, SIZE)
