"""How a search runs: ask and tell, Ray workers, resume, statistics, tracking."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from studies.engine import search
    from studies.estimates import Estimate, estimate
    from studies.export import preset_of
    from studies.progress import Progress
    from studies.results import Candidate, StudyResult
    from studies.settings import SearchSettings
    from studies.store import StudyFolder, list_studies, open_study
    from studies.tracking import log_study

__all__ = [
    "Candidate",
    "Estimate",
    "Progress",
    "SearchSettings",
    "StudyFolder",
    "StudyResult",
    "estimate",
    "list_studies",
    "log_study",
    "open_study",
    "preset_of",
    "search",
]

_HOMES = {
    "Candidate": "studies.results",
    "Estimate": "studies.estimates",
    "Progress": "studies.progress",
    "SearchSettings": "studies.settings",
    "StudyFolder": "studies.store",
    "StudyResult": "studies.results",
    "estimate": "studies.estimates",
    "list_studies": "studies.store",
    "log_study": "studies.tracking",
    "open_study": "studies.store",
    "preset_of": "studies.export",
    "search": "studies.engine",
}


def __getattr__(name: str) -> object:
    """Imports a public name when it is first used, so that a command imports only what it needs."""
    if name not in _HOMES:
        raise AttributeError(f"module 'studies' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
