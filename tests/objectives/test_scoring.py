from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

import objectives
from objectives import MAX_FRAMES, About, Item, needs_references, score
from objectives.temporal_consistency import TemporalConsistency
from tuner.errors import UserError


def grey(level: int) -> Image.Image:
    return Image.new("L", (8, 8), level)


class Level:
    """The grey level of an image, and a record of what it was asked."""

    name, unit, direction, about = "level", "grey levels", "maximize", About()

    def __init__(self) -> None:
        self.prompts: list[str] = []

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        self.prompts += prompts
        return [float(image.getpixel((0, 0))) for image in images]


class Difference:
    name, unit, direction, about = "difference", "grey levels", "minimize", About()

    def compare(self, images: Sequence[Image.Image], references: Sequence[Image.Image]) -> list[float]:
        return [a - b for a, b in zip(Level().score(images, []), Level().score(references, []), strict=True)]


def test_a_video_scores_the_mean_of_its_frames() -> None:
    level = Level()
    items: list[Item] = [[grey(1), grey(3)], grey(7), [grey(10), grey(20), grey(60)]]
    assert score(level, items, ["a", "b", "c"]) == [2, 7, 30]
    assert level.prompts == ["a", "a", "b", "c", "c", "c"]


@pytest.mark.parametrize("count", [MAX_FRAMES, MAX_FRAMES + 1, 100])
def test_a_long_video_is_read_at_evenly_spaced_frames(count: int) -> None:
    level = Level()
    ramp = [grey(i) for i in range(count)]
    assert score(level, [ramp], ["a"]) == pytest.approx([(count - 1) / 2], abs=0.5)
    assert len(level.prompts) == MAX_FRAMES


def test_a_video_is_compared_frame_by_frame_with_the_baselines() -> None:
    difference = Difference()
    videos = [[grey(i + 2) for i in range(100)], [grey(5), grey(9)]]
    references = [[grey(i) for i in range(100)], [grey(1), grey(1)]]
    assert score(difference, videos, ["a", "b"], references) == [2, 6]


def test_what_compares_says_that_it_needs_references() -> None:
    assert needs_references(Difference())
    assert needs_references(Difference)
    assert not needs_references(Level())
    with pytest.raises(UserError, match="pass references"):
        score(Difference(), [grey(1)], ["a"])


@pytest.fixture(scope="module")
def consistency() -> TemporalConsistency:
    loaded = objectives.load("temporal_consistency:tiny")
    assert isinstance(loaded, TemporalConsistency)
    return loaded


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8))


def test_a_still_video_is_wholly_consistent(consistency: TemporalConsistency) -> None:
    assert consistency.score_videos([[noise(0)] * 3]) == pytest.approx([100], abs=1e-3)


def test_consistency_is_the_mean_cosine_of_neighbouring_frames(consistency: TemporalConsistency) -> None:
    clip = objectives.load("clip:tiny")
    frames = [noise(0), Image.new("RGB", (32, 32), "red"), noise(2), noise(2)]
    pairs = [consistency.score_videos([[a, b]])[0] for a, b in pairwise(frames)]
    assert consistency.score_videos([frames]) == pytest.approx([np.mean(pairs)], abs=1e-4)
    embeds = clip._clip.images(frames).numpy()  # type: ignore[union-attr]
    assert pairs[0] == pytest.approx(100 * float(embeds[0] @ embeds[1]), abs=1e-3)
    assert pairs[0] < 99 < pairs[-1]


def test_images_have_no_temporal_consistency(consistency: TemporalConsistency) -> None:
    with pytest.raises(UserError, match="scores videos, but the model draws images"):
        score(consistency, [grey(1)], ["a"])
