"""What an objective has to say once per study, carried from the workers to the user."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import TextIO

from objectives.base import CutPromptWarning


@contextmanager
def noted(notes: MutableMapping[str, str], objective: str) -> Iterator[None]:
    """Keeps the first warning of a cut prompt that is given inside, instead of showing it.

    Ray hides what its workers print, and each of them would say it again.

    Args:
        notes: Where to keep it, by name of the objective.
        objective: Name of the objective that scores inside.
    """
    show = warnings.showwarning

    def keep(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, CutPromptWarning):
            notes.setdefault(objective, str(message))
        else:
            show(message, category, filename, lineno, file, line)

    warnings.showwarning = keep  # `catch_warnings` would make Python forget what it has shown, each time
    try:
        yield
    finally:
        warnings.showwarning = show


class Notes:
    """Shows each objective's note once."""

    def __init__(self) -> None:
        self._shown: set[str] = set()

    def show(self, notes: Mapping[str, str]) -> None:
        """Warns of what has not been warned of yet."""
        for objective, note in notes.items():
            if objective not in self._shown:
                self._shown.add(objective)
                warnings.warn(note, CutPromptWarning, stacklevel=2)
