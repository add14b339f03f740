"""The interface of objectives: images in, one float per prompt out.

An objective has five members: ``name``, ``unit``, ``direction`` and ``about`` describe it without loading
anything, and one method scores. Which method decides what it is given:

- ``score(images, prompts)``: an `Objective`, each image against its prompt. Most are this.
- ``compare(images, references)``: a `FidelityObjective`, each image against the baseline's for the same noise.
- ``score_videos(videos)``: a `VideoObjective`, each video as a whole.

A class may have a static ``check_prompts(prompts)``, too, which refuses prompts before anything is drawn.

`objectives.score` calls whichever there is, and is the one place that knows how a video is scored by an
objective that reads single images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

from tuner.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

    from tuner.models import Item

Direction = Literal["maximize", "minimize"]


def loss_sign(direction: Direction) -> int:
    """Sign that turns a score into a loss, which is minimised."""
    return -1 if direction == "maximize" else 1


DTYPES = ("float32", "float16", "bfloat16")


class CutPromptWarning(UserWarning):
    """A prompt is longer than the network of an objective reads."""


@dataclass(frozen=True)
class About:
    """Facts that a user needs before trusting an objective.

    Attributes:
        range: Lowest and highest possible score; infinite where there is no bound.
        weights: The weights that are loaded by default; None if there are none to load.
        license: Licence of those weights.
        embedded: Whether small weights for the images of the model ``tiny`` are in the package, as ``NAME:tiny``.
        tokens: How many tokens of a prompt are read; None if all of it.
    """

    range: tuple[float, float] = (-math.inf, math.inf)
    weights: str | None = None
    license: str | None = None
    embedded: bool = False
    tokens: int | None = None


class Described(Protocol):
    """Description of an objective that needs no weights.

    An objective is built as ``ClassName(weights, device)`` where ``weights`` is what the user wrote after the
    first colon in ``name:weights`` (``None`` if nothing) and ``device`` is a torch device string.

    Attributes:
        name: The name of the file that holds the class, e.g. ``"clip"``.
        unit: What one point of the score is, e.g. ``"cosine x 100"``.
        direction: ``"maximize"`` if more is better, else ``"minimize"``.
        about: Range, weights and their licence.
    """

    name: str
    unit: str
    direction: Direction
    about: About


@runtime_checkable
class Objective(Described, Protocol):
    """A score of single images for their prompts."""

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        """Scores image ``i`` against prompt ``i``.

        Args:
            images: PIL images of any size and mode; they are not changed.
            prompts: As many prompts as images.

        Returns:
            One finite float per prompt, in the order given, independent of what else is in the batch.

        Raises:
            UserError: If the two lists differ in length, or if there is an image that cannot be scored.
        """
        ...


@runtime_checkable
class FidelityObjective(Described, Protocol):
    """A distance or similarity between images and the baseline's images."""

    def compare(self, images: Sequence[Image], references: Sequence[Image]) -> list[float]:
        """Scores image ``i`` against reference ``i``, the baseline's image for the same prompt and noise.

        Args:
            images: PIL images; they are not changed.
            references: As many images of the same sizes.

        Returns:
            One finite float per pair, also where the two are equal, independent of what else is in the batch.

        Raises:
            UserError: If the two lists differ in length, or a pair in size.
        """
        ...


@runtime_checkable
class VideoObjective(Described, Protocol):
    """A score of videos that single frames do not tell."""

    def score_videos(self, videos: Sequence[Sequence[Image]]) -> list[float]:
        """Scores each video.

        Args:
            videos: The frames of each video, in order, two or more.

        Returns:
            One finite float per video, independent of what else is in the batch.

        Raises:
            UserError: If a video has fewer than two frames.
        """
        ...


AnyObjective: TypeAlias = Objective | FidelityObjective | VideoObjective


def frames_of(item: Item) -> list[Image]:
    """Returns the frames of a video, or an image as the only one."""
    return item if isinstance(item, list) else [item]


def check_pairs(images: Sequence[Image], prompts: Sequence[str]) -> None:
    """Makes sure that there is one image per prompt.

    Raises:
        UserError: If the two lists differ in length.
    """
    if len(images) != len(prompts):
        raise UserError(
            f"Got {len(images)} images for {len(prompts)} prompts: every prompt needs exactly one image. "
            "Pass two lists of the same length."
        )


def check_references(images: Sequence[Image], references: Sequence[Image]) -> None:
    """Makes sure that there is one reference of the same size per image.

    Raises:
        UserError: If the two lists differ in length, or a pair in size.
    """
    if len(images) != len(references):
        raise UserError(
            f"Got {len(images)} images for {len(references)} references: every image needs exactly one. "
            "Pass two lists of the same length."
        )
    for image, reference in zip(images, references, strict=True):
        if image.size != reference.size:
            raise UserError(
                f"An image of {image.width}x{image.height} pixels cannot be compared with a reference of "
                f"{reference.width}x{reference.height}. Draw both at the same size."
            )


def check_no_weights(name: str, weights: str | None) -> None:
    """Makes sure that nobody expects weights of an objective that has none.

    Raises:
        UserError: If weights are named.
    """
    if weights is not None:
        raise UserError(f"Objective {name!r} has no weights to choose, but got {weights!r}. Write {name!r}.")


def split_dtype(weights: str | None, default: str) -> tuple[str, str]:
    """Splits ``WEIGHTS@DTYPE``: a network runs in float32 unless its weights say otherwise.

    Only a last part that is one of ``DTYPES`` counts, so a folder may have an ``@`` in its name.

    Args:
        weights: What the user wrote after the colon, e.g. ``zai-org/ImageReward@bfloat16`` or ``@float16``.
        default: The weights where none are named.
    """
    source, at, dtype = (weights or "").rpartition("@")
    if at and dtype in DTYPES:
        return source or default, dtype
    return weights or default, DTYPES[0]
