from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tuner.errors import UserError
from tuner.tiny.checker import ATTRIBUTES, accuracy, check
from tuner.tiny.scenes import (
    SHAPES,
    Description,
    Place,
    Scene,
    Thing,
    change_one_attribute,
    random_scene,
    render,
)


@pytest.mark.parametrize("size", [64, 32])
def test_clean_renders_are_right(size: int) -> None:
    rng = np.random.default_rng(1)
    scenes = [random_scene(rng) for _ in range(60)]

    shares = accuracy([render(scene, size) for scene in scenes], [scene.caption for scene in scenes])

    assert set(shares) == {*ATTRIBUTES, "joint"}
    assert shares["joint"] >= 0.97


def test_a_caption_with_one_wrong_attribute_is_wrong() -> None:
    rng = np.random.default_rng(2)
    for _ in range(40):
        scene = random_scene(rng)
        assert not check(render(scene, 64), change_one_attribute(scene.description, rng).caption).joint


def one(shape: str = "cross", colour: str = "red", texture: str = "plain") -> Scene:
    description = Description((Thing(shape, colour),), None, "gray", texture)
    return Scene(description, (Place(0.5, 0.5, 0.24, 0.2),), 0.0, 0.0, 0.25)


def blurred(image: np.ndarray, radius: float) -> np.ndarray:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


def test_a_blurred_cross_has_the_wrong_shape_and_nothing_else_wrong() -> None:
    verdict = check(blurred(render(one(), 64), 5), one().caption)

    assert {name for name, right in verdict.right.items() if not right} <= {"shape", "colour"}
    assert not verdict.right["shape"]


def test_blurred_stripes_are_the_wrong_texture() -> None:
    scene = one(texture="striped")

    assert not check(blurred(render(scene, 64), 6), scene.caption).right["texture"]


def test_an_extra_thing_is_a_wrong_count() -> None:
    image = render(one(), 64)
    image[4:14, 4:14] = (50, 75, 225)

    assert not check(image, one().caption).right["count"]


def test_a_ghost_of_the_same_colour_is_a_wrong_shape() -> None:
    image = render(one("square"), 64)
    image[2:14, 2:14] = image[32, 32]

    assert not check(image, one("square").caption).right["shape"]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_missing_thing_is_wrong(shape: str) -> None:
    empty = np.full((64, 64, 3), 128, dtype=np.uint8)
    verdict = check(empty, one(shape).caption)

    assert verdict.right["background"]
    assert not any(verdict.right[name] for name in ("count", "shape", "colour", "relation"))


def test_a_washed_out_colour_is_wrong() -> None:
    image = render(one("circle"), 64).astype(float)
    verdict = check((0.6 * image + 0.4 * 128).astype(np.uint8), one("circle").caption)

    assert not verdict.right["colour"]


def test_noise_is_wrong() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)

    assert not check(image, one().caption).joint


@pytest.mark.parametrize("shape", [(64, 32, 3), (64, 64), (64, 64, 4)])
def test_other_image_forms_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="square"):
        check(np.zeros(shape, dtype=np.uint8), one().caption)
