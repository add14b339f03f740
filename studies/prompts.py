"""The prompts of a study: some that the search sees, and some for scoring the winner that it never sees."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.errors import UserError

if TYPE_CHECKING:
    from tuner.models import Blueprint

_SHIPPED = Path(__file__).parent / "prompt_sets"
_FEWEST = 4  # two to search and two to hold out: an interval needs two prompts


@dataclass(frozen=True)
class PromptSets:
    """Prompts, split.

    Attributes:
        search: What candidates are scored on.
        held_out: What only the winner is scored on, after the search.
        name: Name of the shipped set, or of the user's file.
    """

    search: tuple[str, ...]
    held_out: tuple[str, ...]
    name: str

    @property
    def hash(self) -> str:
        """Sixteen hex digits that are equal for two sets exactly when their prompts and their split are."""
        text = json.dumps([self.search, self.held_out])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_prompts(path: str | os.PathLike[str] | None, blueprint: Blueprint) -> PromptSets:
    """Reads a prompt file, or the shipped set that suits a model.

    A file has one prompt per line in UTF-8; blank lines and lines that start with ``#`` are skipped, and a
    prompt that comes again is taken once. Every second prompt is held out.

    Args:
        path: The file; None for ``prompt_sets/MODEL.txt``, or ``general.txt`` where there is none of that name.
        blueprint: The model that will draw the prompts.

    Raises:
        UserError: If the file cannot be read as text, or has too few prompts to split.
    """
    if path is None:
        names = {file.stem for file in _SHIPPED.glob("*.txt")}
        path = _SHIPPED / f"{blueprint.name if blueprint.name in names else 'general'}.txt"
    path = Path(path)
    lines = [line.strip() for line in _read(path).splitlines()]
    prompts = list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if len(prompts) < _FEWEST:
        raise UserError(
            f"Prompts file {str(path)!r} has {len(prompts)} different prompts, one per line, and at least "
            f"{_FEWEST} are needed to search on some and check on others; add {_FEWEST - len(prompts)}."
        )
    return PromptSets(
        tuple(prompts[::2]), tuple(prompts[1::2]), path.stem if path.parent == _SHIPPED else path.name
    )


def _read(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(
            f"Prompts file {str(path)!r} does not exist; give a text file, one prompt per line."
        ) from None
    except IsADirectoryError:
        raise UserError(
            f"Prompts file {str(path)!r} is a folder; give a text file, one prompt per line."
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"Prompts file {str(path)!r} is not UTF-8 text (byte {error.start}); save it as UTF-8."
        ) from None
    except OSError as error:
        raise UserError(
            f"Prompts file {str(path)!r} cannot be read: {error.strerror}; check its permissions."
        ) from None
    if "\0" in text:
        raise UserError(f"Prompts file {str(path)!r} is not text: it has zero bytes; give one prompt per line.")
    return text
