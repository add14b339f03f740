from __future__ import annotations

import numpy as np
import pytest

from studies.judge.noninferiority import non_inferiority
from studies.plan.margins import Margin, parse_margins
from tuner.errors import UserError

RNG = np.random.default_rng(0)
BASELINE = 30 + RNG.normal(size=64)
NOISE = 0.1 * RNG.normal(size=64)
ONE_PERCENT = Margin(0.01, relative=True)


@pytest.mark.parametrize(("loss", "holds"), [(0.0, True), (0.2, True), (0.29, False), (1.0, False), (-1.0, True)])
def test_one_percent_of_a_mean_of_30_is_three_tenths(loss: float, holds: bool) -> None:
    claim = non_inferiority(BASELINE - loss + NOISE, BASELINE, ONE_PERCENT, "maximize")
    assert claim.holds is holds
    assert claim.points == pytest.approx(0.3, abs=0.01)
    assert claim.margin == "1 %"
    assert claim.most_lost == pytest.approx(loss, abs=0.05)
    assert claim.most_lost > loss - NOISE.mean()


def test_a_loss_is_a_rise_where_less_is_better() -> None:
    worse = BASELINE + 1 + NOISE
    assert non_inferiority(worse, BASELINE, ONE_PERCENT, "minimize").holds is False
    assert non_inferiority(worse, BASELINE, ONE_PERCENT, "maximize").holds is True


def test_a_negative_mean_has_a_size_too() -> None:
    claim = non_inferiority(-BASELINE - 0.1 + NOISE, -BASELINE, ONE_PERCENT, "maximize")
    assert claim.holds is True
    assert non_inferiority(-BASELINE - 1 + NOISE, -BASELINE, ONE_PERCENT, "maximize").holds is False


def test_a_part_of_a_mean_that_may_be_zero_claims_nothing_and_points_do() -> None:
    baseline = RNG.normal(size=64)
    equal = baseline + 0.001 * RNG.normal(size=64)
    assert non_inferiority(equal, baseline, ONE_PERCENT, "maximize").holds is None
    assert non_inferiority(equal, baseline, Margin(0.05, relative=False), "maximize").holds is True


def test_few_noisy_prompts_claim_nothing_where_the_difference_is_not_significant_either() -> None:
    scores = BASELINE[:8] + 5 * RNG.normal(size=8)
    assert non_inferiority(scores, BASELINE[:8], ONE_PERCENT, "maximize").holds is False


def test_margins_are_read_for_all_or_by_name() -> None:
    names = ["clip", "image_reward"]
    absolute = Margin(0.05, relative=False)
    assert parse_margins("2%", names) == dict.fromkeys(names, Margin(0.02, relative=True))
    assert parse_margins("0.05", names) == dict.fromkeys(names, absolute)
    assert parse_margins("image_reward=0.05", names) == {"clip": ONE_PERCENT, "image_reward": absolute}
    assert parse_margins("2%, image_reward = .05", names) == {
        "clip": Margin(0.02, relative=True),
        "image_reward": absolute,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Margin '' is not a number; write 1%"),
        ("one", "'one' is not a number"),
        ("0%", "'0%' must be positive and finite"),
        ("-1", "'-1' must be positive"),
        ("nan", "'nan' must be positive"),
        ("klip=1%", "Unknown objective in the margin 'klip'. Did you mean 'clip'"),
    ],
)
def test_what_is_no_margin_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        parse_margins(text, ["clip", "image_reward"])
    assert "\n" not in str(error.value)
