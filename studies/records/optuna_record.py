"""The Optuna study on disk: finished trials in order, for resuming and for other tools that read Optuna."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from studies.records.score_log import drop_unfinished_line
from tuner.errors import UserError, one_line

if TYPE_CHECKING:
    import optuna

    from studies.plan.plan import Plan
    from studies.records.study_folder import StudyFolder


class TrialRecord:
    """Keeps finished trials in an Optuna storage, each written in one piece.

    Args:
        plan: The search.
        folder: The study's folder; the caller holds its lock.
        storage: What ``open_storage`` returned; None for the journal in the folder.

    Raises:
        UserError: If the storage has another study of this name.
    """

    def __init__(self, plan: Plan, folder: StudyFolder, storage: optuna.storages.BaseStorage | None):
        import optuna

        storage = storage or _open_journal(folder.journal)
        self._study = optuna.create_study(
            storage=storage, study_name=folder.name, directions=plan.value_directions, load_if_exists=True
        )
        owner = self._study.user_attrs.get("tuner.study_id")
        if plan.settings.storage is None or (owner is None and not self._study.get_trials(deepcopy=False)):
            self._study.set_user_attr("tuner.study_id", folder.id)
        elif owner != folder.id:
            raise UserError(
                f"Storage {plan.settings.storage!r} already has a study {folder.name!r} of another folder; choose "
                "another name with --study, or another --storage."
            )
        self.trials = self._study.get_trials()

    def add(self, trial: optuna.trial.FrozenTrial) -> None:
        """Adds a finished trial, unless an earlier sitting did."""
        if trial.number >= len(self.trials):
            self._study.add_trial(trial)
            self.trials.append(trial)


def _open_journal(journal: Path) -> optuna.storages.BaseStorage:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    drop_unfinished_line(journal)
    Path(f"{journal}.lock").unlink(missing_ok=True)  # left by a killed process; the folder's lock is ours
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return JournalStorage(JournalFileBackend(str(journal)))


def open_storage(url: str | None) -> optuna.storages.BaseStorage | None:
    """Opens the Optuna storage that the user named, before a study writes anything.

    Args:
        url: A database URL; None for the journal in the study's folder.

    Returns:
        The storage; None for the journal.

    Raises:
        UserError: If the storage cannot be opened.
    """
    import optuna

    if url is None:
        return None
    try:
        return optuna.storages.get_storage(url)
    except Exception as error:  # SQLAlchemy, database drivers and Optuna each raise their own
        reason = one_line(error)
        raise UserError(
            f"Storage {url!r} cannot be opened ({type(error).__name__}: {reason}); give a database URL such as "
            "sqlite:///studies.db."
        ) from error
