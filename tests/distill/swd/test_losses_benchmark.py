from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.swd_losses import SCORES, SEEDS, report, stripe_angle, variety
from tuner.tiny.descriptions import parse_caption
from tuner.tiny.scenes import STRIPE_ANGLES, draw_scene, render

CAPTION = "red ring left of blue square on striped gray"


def striped(angle: float, seed: int = 0) -> Image.Image:
    scene = draw_scene(parse_caption(CAPTION), np.random.default_rng(seed))
    return Image.fromarray(render(replace(scene, texture_angle=angle), 64))


@pytest.mark.parametrize("angle", STRIPE_ANGLES)
def test_the_direction_of_stripes_is_read_back(angle: float) -> None:
    assert [stripe_angle(striped(angle, seed)) for seed in range(4)] == [angle] * 4


def test_variety_counts_pairs_within_a_caption() -> None:
    upright = [striped(0.0)] * SEEDS
    mixed = [striped(angle) for angle in STRIPE_ANGLES for _ in range(SEEDS // len(STRIPE_ANGLES))]
    differ, spread, shares = variety([*upright, *mixed])
    pairs, alike = SEEDS * (SEEDS - 1) / 2, len(STRIPE_ANGLES)  # one pair of each direction
    assert differ == [0, pytest.approx((pairs - alike) / pairs)]
    assert spread[0] == 0 < spread[1]
    assert shares == {"0": 0.625, "45": 0.125, "90": 0.125, "135": 0.125}


def test_the_tables_fit_a_terminal() -> None:
    score = {"mean": -0.123, "delta": -0.1, "ci95": (-1.234, -0.123)}
    timing = {"seconds_per_step": 12.34, "steps": 1234, "first": 40}
    row: dict[str, Any] = {"name": "shipped's, untrained", "gflops": 12.345, "seconds": 0.1234, "training": timing}
    row |= dict.fromkeys(SCORES, score) | {"directions": {"0": 0.25, "135": 0.75}}
    lines = report({"rows": [row], "prompts": 200, "striped": 16, "steps": 40}).splitlines()
    assert all(len(line) <= 80 for line in lines[:-1])
