"""How a search runs: ask and tell, Ray workers, resume, statistics, tracking."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from studies.engine.dry_run import Estimate, estimate
    from studies.engine.progress import Progress
    from studies.engine.search import search
    from studies.plan.settings import SearchSettings
    from studies.records.export import preset_of
    from studies.records.results import Candidate, StudyResult
    from studies.records.study_folder import StudyFolder, list_studies, open_study
    from studies.report.mlflow_study import log_study

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
    "Candidate": "studies.records.results",
    "Estimate": "studies.engine.dry_run",
    "Progress": "studies.engine.progress",
    "SearchSettings": "studies.plan.settings",
    "StudyFolder": "studies.records.study_folder",
    "StudyResult": "studies.records.results",
    "estimate": "studies.engine.dry_run",
    "list_studies": "studies.records.study_folder",
    "log_study": "studies.report.mlflow_study",
    "open_study": "studies.records.study_folder",
    "preset_of": "studies.records.export",
    "search": "studies.engine.search",
}


def __getattr__(name: str) -> object:
    """Imports a public name when it is first used, so that a command imports only what it needs."""
    if name not in _HOMES:
        raise AttributeError(f"module 'studies' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
