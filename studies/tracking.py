"""Logs a finished study to MLflow: a parent run for the study, a child run for each schedule worth seeing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from studies.store import StudyFolder

EXPERIMENT = "tuner"


class TrackingError(RuntimeError):
    """MLflow could not be reached or refused; the study itself is finished and saved."""


def default_uri(out: str) -> str:
    """The local MLflow store of the studies in a folder."""
    return f"sqlite:///{out}/mlflow.db"


def log_study(study: StudyFolder, tracking_uri: str | None = None) -> str:
    """Logs a finished study; logging it again brings the same runs up to date.

    Args:
        study: The study.
        tracking_uri: MLflow server or database; None for the one in the study's settings, and failing that
            ``mlflow.db`` beside the studies.

    Returns:
        The id of the parent run.

    Raises:
        UserError: If the study is not finished.
        TrackingError: If MLflow cannot be reached.
    """
    raise NotImplementedError
