"""The world that ``tiny`` draws: captioned scenes of one or two coloured shapes on a grey background.

A ``Description`` holds what the caption says, a ``Scene`` adds the geometry that it leaves open (places,
sizes, rotations, the phase of a texture). All lengths are fractions of the image side, so that one scene
renders at any size; the finest structure that a caption names, a stripe, is 1/10 of the side wide: 6 pixels
at 64 pixels, 3 at 32. The thin dark outline of a shape is detail that only the full size resolves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tuner.tiny.descriptions import (
    BACKGROUNDS,
    COLOURS,
    RELATIONS,
    SHAPES,
    TEXTURES,
    VOCABULARY,
    Description,
    Split,
    Thing,
    captions,
    change_one_attribute,
    parse_caption,
    random_description,
)

__all__ = [
    "BACKGROUNDS",
    "COLOURS",
    "RELATIONS",
    "SHAPES",
    "TEXTURES",
    "VOCABULARY",
    "Description",
    "Place",
    "Scene",
    "Split",
    "Thing",
    "captions",
    "change_one_attribute",
    "draw_scene",
    "parse_caption",
    "random_description",
    "random_scene",
    "render",
    "signed_distance",
]

Array = npt.NDArray[np.float64]

TEXTURE_AMPLITUDE = 0.12
"""Half of the brightness difference inside a gradient or between two stripes (1 is white minus black)."""
OUTLINE = 0.022
"""Width of the dark outline inside a shape's edge."""
OUTLINE_SHADE = 0.4
"""Brightness of the outline relative to the fill."""
STRIPE_PERIODS = (0.2, 0.3)
STRIPE_ANGLES = (0.0, math.pi / 4, math.pi / 2, 3 * math.pi / 4)
MAX_ROTATION = math.radians(25)


@dataclass(frozen=True)
class Place:
    """Where and how one shape is drawn: centre, radius (fractions of the side) and rotation (radians)."""

    x: float
    y: float
    radius: float
    rotation: float


@dataclass(frozen=True)
class Scene:
    """A description with its geometry: all that ``render`` needs.

    Attributes:
        description: What the caption says.
        places: One place per thing of the description.
        texture_angle: Direction across the stripes or along the gradient, in radians.
        texture_phase: Offset of the stripes in periods, in [0, 1).
        stripe_period: Period of the stripes as a fraction of the image side.
    """

    description: Description
    places: tuple[Place, ...]
    texture_angle: float
    texture_phase: float
    stripe_period: float

    @property
    def caption(self) -> str:
        """The caption of the scene's description."""
        return self.description.caption


def draw_scene(description: Description, rng: np.random.Generator) -> Scene:
    """Draws the geometry that a description leaves open."""
    stripes = description.texture == "striped"
    return Scene(
        description,
        _random_places(description.relation, rng),
        float(rng.choice(STRIPE_ANGLES)) if stripes else float(rng.uniform(0, 2 * math.pi)),
        float(rng.random()),
        float(rng.uniform(*STRIPE_PERIODS)),
    )


def random_scene(rng: np.random.Generator, split: Split | None = None) -> Scene:
    """Draws a description and its geometry; see ``random_description`` and ``draw_scene``."""
    return draw_scene(random_description(rng, split), rng)


def render(scene: Scene, size: int) -> npt.NDArray[np.uint8]:
    """Renders a scene.

    Args:
        scene: What to draw.
        size: Height and width in pixels.

    Returns:
        A (size, size, 3) RGB image; edges are anti-aliased over one pixel of that size.
    """
    axis = (np.arange(size) + 0.5) / size
    x, y = np.meshgrid(axis, axis)
    image = np.repeat(_background(scene, x, y, size)[..., None], 3, axis=-1)
    for thing, place in zip(scene.description.things, scene.places, strict=True):
        distance = signed_distance(thing.shape, place, x, y)
        fill = np.asarray(COLOURS[thing.colour], dtype=np.float64) / 255
        for colour, inset in ((fill * OUTLINE_SHADE, 0.0), (fill, OUTLINE)):
            cover = np.clip(0.5 - (distance + inset) * size, 0, 1)[..., None]
            image = image * (1 - cover) + colour * cover
    return np.asarray(np.rint(np.clip(image, 0, 1) * 255), dtype=np.uint8)


def signed_distance(shape: str, place: Place, x: Array, y: Array) -> Array:
    """Distance of each point from the edge of a shape, negative inside, in fractions of the image side."""
    cos, sin = math.cos(place.rotation), math.sin(place.rotation)
    u = cos * (x - place.x) + sin * (y - place.y)
    v = cos * (y - place.y) - sin * (x - place.x)
    return _DISTANCES[shape](u, v, place.radius)


def _square(u: Array, v: Array, r: float) -> Array:
    return np.maximum(abs(u), abs(v)) - 0.82 * r


def _triangle(u: Array, v: Array, r: float) -> Array:
    side = math.sqrt(3) / 2
    return np.maximum(np.maximum(side * u - 0.5 * v, -side * u - 0.5 * v), v) - 0.6 * r


def _cross(u: Array, v: Array, r: float) -> Array:
    arm, half = r, 0.36 * r
    across = np.maximum(abs(u) - arm, abs(v) - half)
    return np.minimum(across, np.maximum(abs(u) - half, abs(v) - arm))


_DISTANCES: dict[str, Callable[[Array, Array, float], Array]] = {
    "circle": lambda u, v, r: np.hypot(u, v) - r,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "ring": lambda u, v, r: abs(np.hypot(u, v) - 0.75 * r) - 0.25 * r,
}


def _background(scene: Scene, x: Array, y: Array, size: int) -> Array:
    level = BACKGROUNDS[scene.description.background]
    along = math.cos(scene.texture_angle) * (x - 0.5) + math.sin(scene.texture_angle) * (y - 0.5)
    if scene.description.texture == "plain":
        return np.full_like(x, level)
    if scene.description.texture == "gradient":
        return level + 2 * TEXTURE_AMPLITUDE * along
    period = scene.stripe_period
    position = (along / period + scene.texture_phase) % 1
    from_edge = (0.25 - abs(position - 0.5)) * period  # positive inside the bright half of the period
    return level + TEXTURE_AMPLITUDE * np.clip(2 * from_edge * size, -1, 1)


def _random_places(relation: str | None, rng: np.random.Generator) -> tuple[Place, ...]:
    if relation is None:
        x, y = rng.uniform(0.34, 0.66, size=2)
        return (_place(float(x), float(y), float(rng.uniform(0.18, 0.26)), rng),)
    near, far = float(rng.uniform(0.24, 0.28)), float(rng.uniform(0.72, 0.76))
    across = rng.uniform(0.36, 0.64, size=2)
    along = (near, far) if relation in ("left of", "above") else (far, near)
    points = [(a, float(c)) for a, c in zip(along, across, strict=True)]
    if relation in ("above", "below"):
        points = [(c, a) for a, c in points]
    return tuple(_place(x, y, float(rng.uniform(0.155, 0.19)), rng) for x, y in points)


def _place(x: float, y: float, radius: float, rng: np.random.Generator) -> Place:
    return Place(x, y, radius, float(rng.uniform(-MAX_ROTATION, MAX_ROTATION)))
