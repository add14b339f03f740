"""Reads an image of the scenes' world back and compares it with a caption, attribute by attribute.

Form counts: a shape must cover the pixels of a clean template of its kind and of no other kind better, its
fill must have the colour's own tone, stripes must be one grating. Blurred, ghosted or half-formed images fail.
It works at any size from 32 pixels up; all its limits are fractions of the image side or of brightness.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from tuner.errors import UserError
from tuner.tiny.scenes import (
    BACKGROUNDS,
    COLOURS,
    OUTLINE_SHADE,
    SHAPES,
    STRIPE_ANGLES,
    STRIPE_PERIODS,
    TEXTURE_AMPLITUDE,
    Place,
    parse_caption,
    signed_distance,
)

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

ATTRIBUTES = ("count", "shape", "colour", "relation", "background", "texture")

MIN_AREA = 0.012
"""Share of the image above which a colour counts as a thing; the smallest clean thing covers 0.05."""
MIN_OVERLAP = 0.7
"""Least intersection over union of a thing with the best template; clean renders reach 0.85 and more."""
MAX_COLOUR_ERROR = 0.14
"""Largest distance of a fill from its colour's tone, per channel."""
MIN_OFFSET = 0.2
"""Least distance of two things along the axis of their relation."""
MAX_LEVEL_ERROR = 0.08
"""Largest distance of the mean background brightness from the nominal one."""
MAX_PLAIN_SPREAD = 0.03
"""Largest standard deviation of a plain background."""
MIN_EXPLAINED = {"gradient": 0.8, "striped": 0.5}
"""Least share of the background's variance that the best ramp or grating explains."""
AMPLITUDE_RANGE = (0.7, 1.4)
"""Accepted contrast of a ramp or grating relative to the nominal one."""


@dataclass(frozen=True)
class SeenThing:
    """One shape found in an image: its kind, colour, centre and how well a clean template covers it."""

    shape: str
    colour: str
    x: float
    y: float
    overlap: float
    colour_error: float


@dataclass(frozen=True)
class SeenScene:
    """What an image shows; ``background`` and ``texture`` are None where none is clean enough to name."""

    things: tuple[SeenThing, ...]
    background: str | None
    texture: str | None


@dataclass(frozen=True)
class Verdict:
    """Which attributes of a caption an image gets right."""

    right: dict[str, bool]

    @property
    def joint(self) -> bool:
        """Whether every attribute is right."""
        return all(self.right.values())


def check(image: npt.NDArray[np.uint8], caption: str) -> Verdict:
    """Compares an image with a caption.

    Args:
        image: A (size, size, 3) RGB image, size 32 or more.
        caption: A caption of the scenes' world.

    Returns:
        A verdict on each of ``ATTRIBUTES``. The relation of a single thing is right when the count is.

    Raises:
        UserError: If the image has another form or the text is not a caption.
    """
    wanted = parse_caption(caption)
    seen = look(image)
    found = {thing.colour: thing for thing in seen.things}
    pairs = [(thing, found.get(thing.colour)) for thing in wanted.things]
    count = len(seen.things) == len(wanted.things)
    matched = [other for _, other in pairs if other is not None]
    complete = count and len(matched) == len(pairs)
    return Verdict(
        {
            "count": count,
            "shape": all(o is not None and o.shape == t.shape and o.overlap >= MIN_OVERLAP for t, o in pairs),
            "colour": complete and all(other.colour_error <= MAX_COLOUR_ERROR for other in matched),
            "relation": complete and (wanted.relation is None or _relation(*matched) == wanted.relation),
            "background": seen.background == wanted.background,
            "texture": seen.texture == wanted.texture,
        }
    )


def accuracy(images: Sequence[npt.NDArray[np.uint8]], captions: Sequence[str]) -> dict[str, float]:
    """Returns the share of images that get each attribute right, and ``joint``: all of them at once."""
    verdicts = [check(image, caption) for image, caption in zip(images, captions, strict=True)]
    shares = {name: float(np.mean([v.right[name] for v in verdicts])) for name in ATTRIBUTES}
    return {**shares, "joint": float(np.mean([v.joint for v in verdicts]))}


def look(image: npt.NDArray[np.uint8]) -> SeenScene:
    """Finds the things and the background of a (size, size, 3) RGB image."""
    if image.ndim != 3 or image.shape[0] != image.shape[1] or image.shape[2] != 3 or image.dtype != np.uint8:
        raise UserError(
            f"The checker reads square (size, size, 3) uint8 images, but got {image.shape} {image.dtype}. "
            "Convert the image first."
        )
    rgb = image.astype(np.float64) / 255
    chroma = rgb.max(axis=2) - rgb.min(axis=2)
    nearest = _nearest_colours(rgb)
    things = []
    covered = np.zeros(chroma.shape, dtype=bool)
    for index, tone in enumerate(_tones()):
        edge = 0.45 * OUTLINE_SHADE * (tone.max() - tone.min())
        mask = (nearest == index) & (chroma > edge)
        if mask.mean() >= MIN_AREA:
            things.append(_thing(rgb, mask, index))
            covered |= mask
    return SeenScene(tuple(things), *_background(rgb.mean(axis=2), ~_grown(covered, chroma.shape[0])))


def _tones() -> Array:
    return np.asarray(list(COLOURS.values()), dtype=np.float64) / 255


def _nearest_colours(rgb: Array) -> npt.NDArray[np.int64]:
    """Index of the colour nearest in hue; grey light added by an anti-aliased edge does not change a hue."""

    def hue(values: Array) -> Array:
        offset = values - values.mean(axis=-1, keepdims=True)
        return np.asarray(offset / np.maximum(np.linalg.norm(offset, axis=-1, keepdims=True), 1e-6))

    return np.asarray((hue(rgb) @ hue(_tones()).T).argmax(axis=-1))


def _thing(rgb: Array, mask: Mask, index: int) -> SeenThing:
    size = mask.shape[0]
    axis = (np.arange(size) + 0.5) / size
    x, y = float((mask.sum(axis=0) @ axis) / mask.sum()), float((mask.sum(axis=1) @ axis) / mask.sum())
    best, shape = max(
        (_overlap(mask, shape, x, y, rotation, axis), shape)
        for shape in SHAPES
        for rotation in ((0.0,) if shape in ("circle", "ring") else _ROTATIONS)
    )
    tone = _tones()[index]
    # The purest quarter of the pixels is fill, neither outline nor anti-aliased edge.
    inside = rgb[mask]
    similarity = np.abs(inside - tone).max(axis=1)
    fill = inside[similarity <= np.quantile(similarity, 0.4)]
    error = float(np.abs(np.median(fill, axis=0) - tone).max())
    return SeenThing(shape, list(COLOURS)[index], x, y, best, error)


_ROTATIONS = tuple(math.radians(angle) for angle in range(-30, 31, 6))


@lru_cache
def _unit_area(shape: str) -> float:
    """Area of a shape of radius 1."""
    axis = np.linspace(-1.5, 1.5, 601)
    u, v = np.meshgrid(axis, axis)
    return float((signed_distance(shape, Place(0, 0, 1, 0), u, v) < 0).mean() * 9)


def _overlap(mask: Mask, shape: str, x: float, y: float, rotation: float, axis: Array) -> float:
    """Intersection over union of a mask with a template of its centre and area."""
    radius = math.sqrt(float(mask.mean()) / _unit_area(shape))
    template = signed_distance(shape, Place(x, y, radius, rotation), *np.meshgrid(axis, axis)) < 0
    return float((mask & template).sum() / (mask | template).sum())


def _relation(first: SeenThing, second: SeenThing) -> str | None:
    right, down = first.x - second.x, first.y - second.y
    if max(abs(right), abs(down)) < MIN_OFFSET:
        return None
    if abs(right) > abs(down):
        return "right of" if right > 0 else "left of"
    return "below" if down > 0 else "above"


def _grown(mask: Mask, size: int) -> Mask:
    """The mask and a margin of 1/32 of the side around it."""
    margin = max(1, size // 32)
    padded = np.pad(mask, margin)
    shifts = itertools.product(range(2 * margin + 1), repeat=2)
    return np.asarray(np.any([padded[i : i + size, j : j + size] for i, j in shifts], axis=0))


def _background(brightness: Array, free: Mask) -> tuple[str | None, str | None]:
    values = brightness[free]
    if values.size < 0.1 * free.size:
        return None, None
    axis = (np.arange(free.shape[0]) + 0.5) / free.shape[0] - 0.5
    x, y = (grid[free] for grid in np.meshgrid(axis, axis))
    level, texture = _texture(values, x, y)
    name = min(BACKGROUNDS, key=lambda key: abs(BACKGROUNDS[key] - level))
    return (name if abs(BACKGROUNDS[name] - level) <= MAX_LEVEL_ERROR else None), texture


def _texture(values: Array, x: Array, y: Array) -> tuple[float, str | None]:
    """Mean level and texture of the background, from least-squares fits of a ramp and of gratings."""
    if values.std() <= MAX_PLAIN_SPREAD:
        return float(values.mean()), "plain"
    ramp = _fit(values, x, y)
    waves = [
        2 * math.pi * (math.cos(angle) * x + math.sin(angle) * y) / period
        for angle in STRIPE_ANGLES
        for period in np.linspace(*STRIPE_PERIODS, 9)
    ]
    grating = max((_fit(values, np.cos(wave), np.sin(wave)) for wave in waves), key=lambda fit: fit[0])
    texture, fit = max((("gradient", ramp), ("striped", grating)), key=lambda pair: pair[1][0])
    explained, level, amplitude = fit
    nominal = TEXTURE_AMPLITUDE * (2 if texture == "gradient" else 4 / math.pi)
    low, high = AMPLITUDE_RANGE
    clean = explained >= MIN_EXPLAINED[texture] and low <= amplitude / nominal <= high
    return level, texture if clean else None


def _fit(values: Array, first: Array, second: Array) -> tuple[float, float, float]:
    """Explained share of the variance, constant and amplitude of ``values ~ c + a first + b second``."""
    design = np.stack([np.ones_like(values), first, second], axis=1)
    solution = np.linalg.solve(design.T @ design + 1e-9 * np.eye(3), design.T @ values)
    residual = values - design @ solution
    return 1 - float(residual.var() / values.var()), float(solution[0]), math.hypot(*solution[1:])
