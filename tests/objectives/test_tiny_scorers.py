"""The bars of the shipped scorers, on captions that no training saw; every bar holds with its 95 % interval."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

import objectives
from benchmarks.tiny_scorers import compare, draw_samples, score_renders
from objectives import Objective
from tuner.tiny.scenes import captions

RENDERS = 200
SAMPLES = 96
SHIPPED_BYTES = 8_000_000


@pytest.fixture(scope="module")
def reward() -> Objective:
    return objectives.load("image_reward:tiny")


@pytest.fixture(scope="module")
def rendered(reward: Objective) -> dict[str, Sequence[float]]:
    return score_renders(reward, RENDERS)


@pytest.fixture(scope="module")
def sampled(reward: Objective) -> dict[str, Sequence[float]]:
    images = draw_samples(SAMPLES, steps=(50, 4, 2))
    return {name: reward.score(column, captions("held_out", SAMPLES)) for name, column in images.items()}


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("clean", "blurred (1 px)"),
        ("blurred (1 px)", "blurred (2 px)"),
        ("clean", "noisy"),
        ("clean", "halved"),
        ("clean", "wrong caption"),
    ],
)
def test_reward_prefers_the_better_render(better: str, worse: str, rendered: dict[str, Sequence[float]]) -> None:
    comparison = compare(better, worse, rendered)
    assert comparison.ci95[0] > 0, comparison


@pytest.mark.parametrize(("better", "worse"), [("50 steps", "4 steps"), ("4 steps", "2 steps")])
def test_reward_prefers_more_steps(better: str, worse: str, sampled: dict[str, Sequence[float]]) -> None:
    comparison = compare(better, worse, sampled)
    assert comparison.ci95[0] > 0, comparison


def test_clip_prefers_the_true_caption() -> None:
    comparison = compare("clean", "wrong caption", score_renders(objectives.load("clip:tiny"), RENDERS))
    assert comparison.ci95[0] > 0, comparison
    assert comparison.wins > 0.8, comparison


def test_shipped_weights_are_small() -> None:
    folder = Path(objectives.__file__).parent / "tiny" / "weights"
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    assert {path.suffix for path in sizes} <= {".safetensors", ".json", ".txt"}
    assert 0 < sum(sizes.values()) <= SHIPPED_BYTES
