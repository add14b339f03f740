"""What every objective promises, for every file in ``objectives/``, on small weights."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from PIL import Image, ImageFilter

import objectives
from objectives import AnyObjective, FidelityObjective, Item, Objective, VideoObjective
from tests.objectives.small_checkpoints import small
from tuner.errors import UserError
from tuner.tiny.scenes import captions, draw_scene, parse_caption, render

PROMPTS = captions("held_out", 6)


@pytest.fixture(scope="module", params=objectives.available())
def objective(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AnyObjective]:
    with small(request.param, tmp_path_factory.mktemp(request.param)) as loaded:
        yield loaded


@pytest.fixture
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(render(draw_scene(parse_caption(prompt), rng), 64)) for prompt in PROMPTS]


def score(objective: AnyObjective, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
    """Scores images, or videos of two frames; the baseline's are the same, blurred."""
    items: Sequence[Item] = images
    if isinstance(objective, VideoObjective):
        items = [[image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)] for image in images]
    return objectives.score(objective, items, prompts, [blurred(image) for image in images])


def blurred(image: Image.Image) -> Image.Image:
    return image.convert("RGB").filter(ImageFilter.GaussianBlur(1))


def test_describes_itself(objective: AnyObjective) -> None:
    description = objectives.describe(objective.name)
    assert sum(isinstance(objective, kind) for kind in (Objective, FidelityObjective, VideoObjective)) == 1
    assert objective.name in objectives.available()
    assert objective.unit
    assert objective.direction in ("maximize", "minimize")
    assert objective.about.range[0] < objective.about.range[1]
    assert (objective.about.weights is None) == (objective.about.license is None)
    assert (description.name, description.unit, description.direction) == (
        objective.name,
        objective.unit,
        objective.direction,
    )
    assert description.summary
    assert description.reads in ("images", "the baseline's images", "videos")


def test_gives_one_finite_float_per_prompt(objective: AnyObjective, images: list[Image.Image]) -> None:
    scores = score(objective, images, PROMPTS)
    assert len(scores) == len(PROMPTS)
    assert all(type(value) is float and math.isfinite(value) for value in scores)


def test_keeps_the_order(objective: AnyObjective, images: list[Image.Image]) -> None:
    mixed = [*images[:3], *[image.rotate(90).filter(ImageFilter.GaussianBlur(2)) for image in images[3:]]]
    scores = score(objective, mixed, PROMPTS)
    backwards = score(objective, mixed[::-1], PROMPTS[::-1])
    assert backwards[::-1] == pytest.approx(scores, abs=1e-4)
    assert backwards != pytest.approx(scores, abs=1e-4)  # a shuffle would be seen


def test_a_score_does_not_depend_on_its_batch(objective: AnyObjective, images: list[Image.Image]) -> None:
    alone = [score(objective, [image], [prompt])[0] for image, prompt in zip(images, PROMPTS, strict=True)]
    assert score(objective, images * 7, PROMPTS * 7) == pytest.approx(alone * 7, abs=1e-4)


def test_is_deterministic(objective: AnyObjective, images: list[Image.Image]) -> None:
    assert score(objective, images, PROMPTS) == score(objective, images, PROMPTS)


def test_leaves_its_inputs_alone(objective: AnyObjective, images: list[Image.Image]) -> None:
    before = [(image.mode, image.size, image.tobytes()) for image in images]
    prompts = list(PROMPTS)
    score(objective, images, prompts)
    assert [(image.mode, image.size, image.tobytes()) for image in images] == before
    assert prompts == PROMPTS


def test_reads_the_image(objective: AnyObjective, images: list[Image.Image]) -> None:
    first, second = score(objective, [images[0], images[0].filter(ImageFilter.GaussianBlur(4))], PROMPTS[:1] * 2)
    assert first != pytest.approx(second, abs=1e-3)


def test_equal_images_are_the_best_there_is(objective: AnyObjective, images: list[Image.Image]) -> None:
    if not isinstance(objective, FidelityObjective):
        pytest.skip("compares with nothing")
    low, high = objective.about.range
    best = high if objective.direction == "maximize" else low
    assert objective.compare(images, images) == pytest.approx([best] * len(images), abs=1e-5)
    worse = score(objective, images, PROMPTS)
    assert all(abs(value - best) > 1e-3 for value in worse)


def test_stays_in_its_range(objective: AnyObjective, images: list[Image.Image]) -> None:
    if objective.name == "aesthetic":
        pytest.skip("linear layers are not bounded; the range is that of the ratings they were fitted to")
    low, high = objective.about.range
    assert all(low <= value <= high for value in score(objective, images, PROMPTS))


@pytest.mark.parametrize("size", [(64, 96), (200, 100), (32, 32), (7, 7)])
def test_takes_images_of_any_size_or_says_which(
    objective: AnyObjective, size: tuple[int, int], images: list[Image.Image]
) -> None:
    readable = min(size) >= 32 and (objective.name != "attributes" or size[0] == size[1])
    try:
        scores = score(objective, [images[0].resize(size)], PROMPTS[:1])
    except UserError as error:
        reason = str(error)
    else:
        reason = None
        assert math.isfinite(scores[0])
    assert reason is None or (not readable and f"{size[0]}x{size[1]}" in reason)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
def test_takes_images_of_other_modes(objective: AnyObjective, mode: str, images: list[Image.Image]) -> None:
    assert math.isfinite(score(objective, [images[0].convert(mode)], PROMPTS[:1])[0])


def test_an_image_with_opaque_alpha_scores_like_the_image(
    objective: AnyObjective, images: list[Image.Image]
) -> None:
    with_alpha = [image.convert("RGBA") for image in images]
    assert score(objective, with_alpha, PROMPTS) == pytest.approx(score(objective, images, PROMPTS), abs=1e-4)


def test_nothing_in_nothing_out(objective: AnyObjective) -> None:
    assert score(objective, [], []) == []


def test_lists_of_different_length_are_refused(objective: AnyObjective, images: list[Image.Image]) -> None:
    if isinstance(objective, Objective):
        with pytest.raises(UserError, match="6 images for 2 prompts"):
            objective.score(images, PROMPTS[:2])
    elif isinstance(objective, FidelityObjective):
        with pytest.raises(UserError, match="6 images for 2 references"):
            objective.compare(images, images[:2])
    else:
        with pytest.raises(UserError, match="two frames"):
            objective.score_videos([images, images[:1]])


def test_listing_and_parsing_import_nothing_heavy() -> None:
    code = (
        "import sys, objectives\n"
        "objectives.parse(objectives.available()[0] + ':tiny')\n"
        "objectives.parse('json:dumps')\n"
        "assert not {f'objectives.{name}' for name in objectives.available()} & set(sys.modules)\n"
        "for name in objectives.available():\n"
        "    objectives.describe(name)\n"
        "heavy = {'torch', 'transformers', 'open_clip', 'numpy', 'PIL', 'skimage', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
