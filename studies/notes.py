"""What an objective has to say once per study, carried from the workers to the user."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager

from objectives.base import CutPromptWarning


@contextmanager
def noted(notes: MutableMapping[str, str], objective: str) -> Iterator[None]:
    """Keeps the first warning of a cut prompt that is given inside, instead of showing it.

    Ray hides what its workers print, and each of them would say it again.

    Args:
        notes: Where to keep it, by name of the objective.
        objective: Name of the objective that scores inside.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CutPromptWarning)
        yield
    for warning in caught:
        if issubclass(warning.category, CutPromptWarning):
            notes.setdefault(objective, str(warning.message))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


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
