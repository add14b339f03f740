"""What every objective promises, for every file in ``objectives/``, on its embedded weights."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import objectives
from objectives import Objective
from tuner.errors import UserError
from tuner.tiny.scenes import captions, draw_scene, parse_caption, render

PROMPTS = captions("held_out", 6)


@pytest.fixture(scope="module", params=objectives.available())
def objective(request: pytest.FixtureRequest) -> Objective:
    return objectives.load(f"{request.param}:tiny")


@pytest.fixture
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(render(draw_scene(parse_caption(prompt), rng), 64)) for prompt in PROMPTS]


def test_describes_itself(objective: Objective) -> None:
    assert isinstance(objective, Objective)
    assert objective.name in objectives.available()
    assert objective.unit
    assert objective.direction in ("maximize", "minimize")


def test_gives_one_finite_float_per_prompt(objective: Objective, images: list[Image.Image]) -> None:
    scores = objective.score(images, PROMPTS)
    assert len(scores) == len(PROMPTS)
    assert all(type(score) is float and math.isfinite(score) for score in scores)


def test_keeps_the_order(objective: Objective, images: list[Image.Image]) -> None:
    scores = objective.score(images, PROMPTS)
    backwards = objective.score(images[::-1], PROMPTS[::-1])
    assert backwards[::-1] == pytest.approx(scores, abs=1e-4)
    assert len({round(score, 3) for score in scores}) == len(scores)  # a shuffle would be seen


def test_a_score_does_not_depend_on_its_batch(objective: Objective, images: list[Image.Image]) -> None:
    alone = [objective.score([image], [prompt])[0] for image, prompt in zip(images, PROMPTS, strict=True)]
    assert objective.score(images * 7, PROMPTS * 7) == pytest.approx(alone * 7, abs=1e-4)


def test_is_deterministic(objective: Objective, images: list[Image.Image]) -> None:
    assert objective.score(images, PROMPTS) == objective.score(images, PROMPTS)


def test_leaves_its_inputs_alone(objective: Objective, images: list[Image.Image]) -> None:
    before = [(image.mode, image.size, image.tobytes()) for image in images]
    prompts = list(PROMPTS)
    objective.score(images, prompts)
    assert [(image.mode, image.size, image.tobytes()) for image in images] == before
    assert prompts == PROMPTS


def test_reads_the_image_and_the_prompt(objective: Objective, images: list[Image.Image]) -> None:
    scores = objective.score(images[:1] * 2 + images[1:2], [PROMPTS[0], PROMPTS[1], PROMPTS[0]])
    assert scores[0] != pytest.approx(scores[1], abs=1e-3)
    assert scores[0] != pytest.approx(scores[2], abs=1e-3)


@pytest.mark.parametrize("size", [(64, 96), (200, 100), (32, 32), (7, 7)])
def test_takes_images_of_any_size(objective: Objective, size: tuple[int, int], images: list[Image.Image]) -> None:
    assert math.isfinite(objective.score([images[0].resize(size)], PROMPTS[:1])[0])


@pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
def test_takes_images_of_other_modes(objective: Objective, mode: str, images: list[Image.Image]) -> None:
    assert math.isfinite(objective.score([images[0].convert(mode)], PROMPTS[:1])[0])


def test_an_image_with_opaque_alpha_scores_like_the_image(objective: Objective, images: list[Image.Image]) -> None:
    with_alpha = [image.convert("RGBA") for image in images]
    assert objective.score(with_alpha, PROMPTS) == pytest.approx(objective.score(images, PROMPTS), abs=1e-4)


def test_nothing_in_nothing_out(objective: Objective) -> None:
    assert objective.score([], []) == []


def test_lists_of_different_length_are_refused(objective: Objective, images: list[Image.Image]) -> None:
    with pytest.raises(UserError, match="6 images for 2 prompts"):
        objective.score(images, PROMPTS[:2])


def test_listing_and_parsing_import_nothing_heavy() -> None:
    code = (
        "import sys, objectives\n"
        "objectives.parse(objectives.available()[0] + ':tiny')\n"
        "heavy = {'torch', 'transformers', 'open_clip', 'numpy', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert not {f'objectives.{name}' for name in objectives.available()} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
