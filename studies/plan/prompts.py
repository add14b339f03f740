"""The prompts of a study: search prompts and held-out prompts."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from studies.plan.prompt_files import read_prompts
from tuner.errors import UserError

if TYPE_CHECKING:
    from tuner.models import Blueprint

_SHIPPED = Path(__file__).parent / "prompt_sets"
_FEWEST = 4  # two to search and two to hold out: an interval needs two prompts


@dataclass(frozen=True)
class PromptSets:
    """Search prompts and held-out prompts.

    Attributes:
        search: Prompts that score candidates.
        held_out: Prompts that score the pick, after the search.
        name: Name of the shipped set, or of the user's file.
        further: More unseen prompts, on which the check of the pick may go on.
    """

    search: tuple[str, ...]
    held_out: tuple[str, ...]
    name: str
    further: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        """Hash of the prompts and their split without the further ones, sixteen hex digits."""
        text = json.dumps([self.search, self.held_out])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class ShippedSet:
    """A set that ships with the package.

    Attributes:
        name: A model of this name, or with scorers of this name, uses the set by default; all others ``general``.
        prompts: Search and held-out prompts, alternating.
        source: Where the prompts come from.
        license: Licence of the prompts.
    """

    name: str
    prompts: tuple[str, ...]
    source: str
    license: str


def shipped_sets() -> list[ShippedSet]:
    """Lists the shipped sets by name; the comments that begin a file say ``Source:`` and ``Licence:``."""
    return [_shipped(path) for path in sorted(_SHIPPED.glob("*.txt"))]


def _shipped(path: Path) -> ShippedSet:
    comments = " ".join(
        line.lstrip("# ") for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")
    )
    source, _, license_ = comments.removeprefix("Source: ").partition(" Licence: ")
    return ShippedSet(path.stem, tuple(read_prompts(path)), source, license_)


def load_prompts(path: str | os.PathLike[str] | None, blueprint: Blueprint) -> PromptSets:
    """Reads a prompt file, or the shipped set of a model.

    Every second prompt is held out.

    Args:
        path: The file, in any format of `studies.plan.prompt_files`; None for the shipped set that suits the
            model.
        blueprint: The model that will draw the prompts.

    Raises:
        UserError: If the file cannot be read, or has too few prompts to split.
    """
    if path is None:
        names = {file.stem for file in _SHIPPED.glob("*.txt")}
        suits = blueprint.scorers or blueprint.name  # what they can score is what the model can draw
        path = _SHIPPED / f"{suits if suits in names else 'general'}.txt"
    path = Path(path)
    prompts = read_prompts(path)
    if len(prompts) < _FEWEST:
        raise UserError(
            f"Prompts file {str(path)!r} has {len(prompts)} different prompts, and at least "
            f"{_FEWEST} are needed to search on some and check on others; add {_FEWEST - len(prompts)}."
        )
    return PromptSets(
        tuple(prompts[::2]), tuple(prompts[1::2]), path.stem if path.parent == _SHIPPED else path.name
    )
