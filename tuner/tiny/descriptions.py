"""What the captions of ``tiny`` can say, and which captions belong to which split."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tuner.errors import UserError

Split = Literal["train", "search", "held_out"]

SHAPES = ("circle", "square", "triangle", "cross", "ring")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (225, 45, 45),
    "yellow": (235, 215, 40),
    "green": (50, 185, 60),
    "cyan": (45, 205, 215),
    "blue": (50, 75, 225),
    "purple": (185, 50, 215),
}
RELATIONS = ("left of", "right of", "above", "below")
BACKGROUNDS: dict[str, float] = {"black": 0.14, "gray": 0.5, "white": 0.86}
TEXTURES = ("plain", "gradient", "striped")
VOCABULARY: tuple[str, ...] = (
    *SHAPES,
    *COLOURS,
    *("left", "right", "of", "above", "below", "on"),
    *BACKGROUNDS,
    *TEXTURES,
)
"""Every word that a caption can hold."""

_SPLIT_OF_DIGIT: dict[int, Split] = {0: "held_out", 1: "search"}  # of ten digits; the rest is for training
_SPLIT_SEEDS: dict[Split, int] = {"train": 11, "search": 22, "held_out": 33}
_MAX_CAPTIONS = 1000


@dataclass(frozen=True)
class Thing:
    """What a caption says about one shape."""

    shape: str
    colour: str

    def __str__(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Description:
    """Everything that a caption says.

    Attributes:
        things: One or two shapes, in the order in which the caption names them, of different colours.
        relation: Where the first shape lies as seen from the second; None for a single shape.
        background: A key of ``BACKGROUNDS``.
        texture: One of ``TEXTURES``.
    """

    things: tuple[Thing, ...]
    relation: str | None
    background: str
    texture: str

    @property
    def caption(self) -> str:
        """The caption, for example ``red circle left of blue square on striped gray``."""
        subject = f" {self.relation} ".join(str(thing) for thing in self.things)
        return f"{subject} on {self.texture} {self.background}"

    @property
    def split(self) -> Split:
        """The split that this caption belongs to, a pure function of its text."""
        digit = int(hashlib.sha256(self.caption.encode()).hexdigest(), 16) % 10
        return _SPLIT_OF_DIGIT.get(digit, "train")


def parse_caption(caption: str) -> Description:
    """Reads a caption back into its description.

    Raises:
        UserError: If the text is not a caption of this world.
    """
    words = caption.split()
    try:
        on = words.index("on")
        subject, (texture, background) = words[:on], words[on + 1 :]
        things = [Thing(shape=subject[1], colour=subject[0])]
        relation = None
        if len(subject) > 2:
            relation = " ".join(subject[2:-2])
            things.append(Thing(shape=subject[-1], colour=subject[-2]))
    except (ValueError, IndexError):
        raise _not_a_caption(caption) from None
    known = (
        all(thing.shape in SHAPES and thing.colour in COLOURS for thing in things)
        and (relation is None or relation in RELATIONS)
        and texture in TEXTURES
        and background in BACKGROUNDS
    )
    description = Description(tuple(things), relation, background, texture)
    if not known or description.caption != caption:
        raise _not_a_caption(caption)
    return description


def random_description(rng: np.random.Generator, split: Split | None = None) -> Description:
    """Draws a description, two shapes three times out of five, optionally from one split only."""
    while True:
        count = 2 if rng.random() < 0.6 else 1
        colours = rng.choice(list(COLOURS), size=count, replace=False)
        things = tuple(Thing(str(rng.choice(SHAPES)), str(colour)) for colour in colours)
        description = Description(
            things,
            str(rng.choice(RELATIONS)) if count == 2 else None,
            str(rng.choice(list(BACKGROUNDS))),
            str(rng.choice(TEXTURES)),
        )
        if split is None or description.split == split:
            return description


def change_one_attribute(description: Description, rng: np.random.Generator) -> Description:
    """Returns the description with exactly one of its attributes changed, for hard negative captions.

    The attribute is drawn evenly from shape and colour of each thing, relation, background and texture. Two
    things keep different colours.
    """
    kinds = ["background", "texture"] + ["shape", "colour"] * len(description.things)
    if description.relation is not None:
        kinds.append("relation")
    kind = str(rng.choice(kinds))
    if kind == "background":
        return dataclasses.replace(description, background=_other(rng, BACKGROUNDS, description.background))
    if kind == "texture":
        return dataclasses.replace(description, texture=_other(rng, TEXTURES, description.texture))
    if kind == "relation":
        return dataclasses.replace(description, relation=_other(rng, RELATIONS, description.relation))
    index = int(rng.integers(len(description.things)))
    thing = description.things[index]
    if kind == "shape":
        changed = dataclasses.replace(thing, shape=_other(rng, SHAPES, thing.shape))
    else:
        taken = [other.colour for other in description.things]
        changed = dataclasses.replace(thing, colour=_other(rng, COLOURS, *taken))
    things = tuple(changed if i == index else other for i, other in enumerate(description.things))
    return dataclasses.replace(description, things=things)


def captions(split: Split, n: int) -> list[str]:
    """Returns the first ``n`` captions of a split: always the same ones, no two alike.

    The splits share no caption: a caption's split is a hash of its text, and training draws from ``train``
    only.

    Raises:
        UserError: If the split is unknown or ``n`` is outside 1..1000.
    """
    if split not in _SPLIT_SEEDS:
        raise UserError(f"Unknown caption split {split!r}. Use one of {', '.join(_SPLIT_SEEDS)}.")
    if not 1 <= n <= _MAX_CAPTIONS:
        raise UserError(f"`1 <= n <= {_MAX_CAPTIONS}` must hold for the number of captions, but got {n}.")
    rng = np.random.default_rng(_SPLIT_SEEDS[split])
    found: dict[str, None] = {}
    while len(found) < n:
        found[random_description(rng, split).caption] = None
    return list(found)


def _other(rng: np.random.Generator, names: Iterable[str], *taken: str | None) -> str:
    return str(rng.choice([name for name in names if name not in taken]))


def _not_a_caption(caption: str) -> UserError:
    return UserError(
        f"Not a caption that tiny knows: {caption!r}. Write COLOUR SHAPE [RELATION COLOUR SHAPE] on TEXTURE "
        f"BACKGROUND, for example 'red circle left of blue square on striped gray'; shapes: "
        f"{', '.join(SHAPES)}; colours: {', '.join(COLOURS)}; relations: {', '.join(RELATIONS)}; textures: "
        f"{', '.join(TEXTURES)}; backgrounds: {', '.join(BACKGROUNDS)}."
    )
