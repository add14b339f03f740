"""How images become one score per prompt: one file per objective, loaded by name.

``load("clip:ViT-B-32/laion2b_s34b_b79k")`` imports ``objectives/clip.py``, takes the class ``Clip`` from
it and hands it what follows the colon. Other packages add objectives through the entry-point group
``tuner.objectives`` (name -> class); a file here wins over an entry point of the same name.

What stands before the first colon is one of these names, or else a Python module, whose function follows:
``load("mypackage.score:fn")``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from objectives import _custom
from objectives._scoring import MAX_FRAMES, needs_references, score
from objectives.base import (
    About,
    AnyObjective,
    Direction,
    FidelityObjective,
    Objective,
    VideoObjective,
    check_no_weights,
)
from tuner.errors import UserError, unknown_name
from tuner.models import Item
from tuner.registry import Registry

if TYPE_CHECKING:
    from objectives.base import Described

__all__ = [
    "MAX_FRAMES",
    "About",
    "AnyObjective",
    "Description",
    "FidelityObjective",
    "Item",
    "Objective",
    "VideoObjective",
    "available",
    "check_fit",
    "describe",
    "direction",
    "load",
    "needs_references",
    "parse",
    "score",
]

_REGISTRY = Registry("objective", __name__, __path__)


@dataclass(frozen=True)
class Description:
    """Describes an objective without loading its weights.

    Attributes:
        name: Its name.
        unit: What one point of the score is.
        direction: Which way it improves.
        about: Range, weights and their licence.
        reads: What it scores: ``images``, ``the baseline's images`` beside them, or ``videos``.
        summary: The first line of its documentation.
    """

    name: str
    unit: str
    direction: Direction
    about: About
    reads: str
    summary: str


def available() -> list[str]:
    """Lists the names that ``load`` accepts, sorted, without importing any objective."""
    return _REGISTRY.available()


def parse(spec: str) -> tuple[str, str | None]:
    """Splits ``"name:weights"`` or ``"module:function:direction"``, without importing anything.

    Args:
        spec: An objective's name, optionally followed by a colon and the weights to use; or a module and a
            function, optionally followed by a colon and a direction.

    Returns:
        The name and the weights, or ``"module:function"`` and the direction; ``None`` for what is not given.

    Raises:
        UserError: If the name is neither, or nothing follows the colon.
    """
    spec = spec.strip()
    name, colon, weights = spec.partition(":")
    if name not in available():
        if _custom.is_custom(spec):
            return _custom.split(spec)
        raise unknown_name("objective", name, available())
    if colon and not weights:
        raise UserError(
            f"Objective {spec!r} names no weights after the colon. Write {name!r} for its default weights."
        )
    return name, weights or None


def load(spec: str, device: str = "cpu") -> AnyObjective:
    """Builds the objective that a spec names.

    Args:
        spec: ``"clip"``, ``"clip:ViT-B-32/laion2b_s34b_b79k"``, ``"clip:/local/folder"``, ``"clip:tiny"``,
            ``"image_reward:@bfloat16"``, ``"psnr"``, ``"mypackage.score:fn"``, ...
        device: A torch device string.

    Returns:
        The objective, its weights loaded on ``device``.

    Raises:
        UserError: If the name is unknown or its weights cannot be loaded.
    """
    name, weights = parse(spec)
    if ":" in name:
        return _function(name, weights)
    built: AnyObjective = _REGISTRY.load(name)(weights, device)
    return built


def direction(spec: str) -> Direction:
    """Says which way an objective improves, without loading its weights.

    Raises:
        UserError: If the name is unknown, or a function cannot be imported.
    """
    return describe(spec).direction


def describe(spec: str) -> Description:
    """Describes an objective without loading its weights.

    Raises:
        UserError: If the name is unknown, or a function cannot be imported, or weights are named where there
            are none.
    """
    name, weights = parse(spec)
    found: Any = _function(name, weights) if ":" in name else _REGISTRY.load(name)
    described: Described = found
    about: About = getattr(found, "about", About())
    if hasattr(found, "about") and about.weights is None and not about.embedded and ":" not in name:
        check_no_weights(name, weights)
    reads = "videos" if hasattr(found, "score_videos") else "images"
    return Description(
        name=described.name,
        unit=described.unit,
        direction=described.direction,
        about=about,
        reads="the baseline's images" if needs_references(found) else reads,
        summary=(found.__doc__ or "").strip().partition("\n")[0].replace("``", ""),
    )


def check_fit(specs: Sequence[str], prompts: Sequence[str], videos: bool) -> None:
    """Checks objectives against prompts before any image is drawn; loads no weights.

    An objective whose class has ``check_prompts(prompts)`` may refuse prompts that it cannot judge.

    Args:
        specs: What to score by.
        prompts: All that will be scored.
        videos: Whether the model makes videos of more than a frame.

    Raises:
        UserError: If an objective cannot judge a prompt, or scores videos where the model draws images.
    """
    for spec in specs:
        if not videos and describe(spec).reads == "videos":
            raise UserError(f"Objective {spec!r} scores videos, but the model draws images; choose another one.")
        name, _ = parse(spec)
        check_prompts = None if ":" in name else getattr(_REGISTRY.load(name), "check_prompts", None)
        if check_prompts is not None:
            check_prompts(prompts)


def _function(name: str, direction: str | None) -> AnyObjective:
    return _custom.Custom(name, direction, available())
