"""The Optuna study on disk: a record of the finished trials, for tools that read Optuna studies.

The record decides nothing: a resumed search replays its trials from the scores, and then compares them with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studies.records.results import PROPOSED
from studies.records.score_log import drop_unfinished_line
from tuner.errors import UserError, one_line

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from studies.plan.plan import Plan
    from studies.records.study_folder import StudyFolder

_OWNER = "tuner.study_id"
_MARK = "mark"


class TrialRecord:
    """Writes finished trials to an Optuna storage, each in one piece, and keeps none of them in memory.

    Args:
        plan: The search.
        folder: The study's folder; the caller holds its lock.
        storage: What ``open_storage`` returned; None for the journal in the folder.

    Attributes:
        earlier: How many trials were written in earlier sittings.
        proposed: How many of those the search proposed.

    Raises:
        UserError: If the storage has another study of this name, or cannot be read or written.
    """

    def __init__(self, plan: Plan, folder: StudyFolder, storage: optuna.storages.BaseStorage | None):
        self._plan = plan
        self._folder = folder
        with _told(plan, folder):
            self._storage, self._study = self._opened(storage)
            owner = self._study.user_attrs.get(_OWNER)
            empty = owner is None and not self._study.get_trials(deepcopy=False)
        if plan.settings.storage is not None and owner != folder.id and not empty:
            raise UserError(
                f"Storage {plan.settings.storage!r} already has a study {folder.name!r} of another folder; choose "
                "another name with --study, or another --storage."
            )
        with _told(plan, folder):
            self._describe()
            found = self._study.get_trials(deepcopy=False)
        self._known = [(trial.state, _mark(trial.user_attrs)) for trial in found]
        self._added = 0
        self.earlier = len(found)
        self.proposed = sum(trial.user_attrs.get("label") == PROPOSED for trial in found)

    def _opened(
        self, storage: optuna.storages.BaseStorage | None
    ) -> tuple[optuna.storages.BaseStorage, optuna.Study]:
        """Opens the Optuna study; a journal that cannot be read is set aside, as the record decides nothing."""
        if storage is not None:
            return storage, self._create(storage)
        try:
            journal = _open_journal(self._folder.journal)
            return journal, self._create(journal)
        except OSError:
            raise
        except Exception as error:  # Optuna's reader meets garbage with whatever its code happens to raise
            self._folder.set_aside(self._folder.journal, f"it cannot be read ({one_line(error)[:300]})")
            journal = _open_journal(self._folder.journal)
            return journal, self._create(journal)

    def add(self, trial: FrozenTrial) -> None:
        """Adds the next finished trial, unless an earlier sitting did.

        A trial differs from the recorded one if a task failed transiently in an earlier sitting and has succeeded
        since, because later trials depend on its scores. The record is then written anew.
        """
        mark = (trial.state, _mark(trial.user_attrs))
        with _told(self._plan, self._folder):
            if self._added < len(self._known) and mark != self._known[self._added]:
                self._rewrite()
            if self._added == len(self._known):
                self._study.add_trial(trial)
                self._known.append(mark)
        self._added += 1

    def _create(self, storage: optuna.storages.BaseStorage) -> optuna.Study:
        import optuna

        return optuna.create_study(
            storage=storage,
            study_name=self._folder.name,
            directions=self._plan.value_directions,
            load_if_exists=True,
        )

    def _describe(self) -> None:
        """Names the owner and the values of the Optuna study."""
        import optuna

        if self._study.user_attrs.get(_OWNER) != self._folder.id:
            self._study.set_user_attr(_OWNER, self._folder.id)
        cost = "TFLOPs" if self._plan.budget.time is None else "seconds"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            if self._study.metric_names is None:
                self._study.set_metric_names([*self._plan.directions, cost])

    def _rewrite(self) -> None:
        """Replaces the Optuna study by one that has only the trials that were added again."""
        import optuna

        whole = self._storage if self._plan.settings.storage else _open_journal(self._folder.journal, brief=False)
        kept = optuna.load_study(study_name=self._folder.name, storage=whole).get_trials()[: self._added]
        optuna.delete_study(study_name=self._folder.name, storage=self._storage)
        self._study = self._create(self._storage)
        self._describe()
        self._study.add_trials(kept)
        self._known = self._known[: self._added]


@contextlib.contextmanager
def _told(plan: Plan, folder: StudyFolder) -> Iterator[None]:
    """Turns errors of the storage inside the context, e.g. a locked database or a full disk, into one line."""
    try:
        yield
    except (UserError, KeyboardInterrupt):
        raise
    except Exception as error:  # SQLAlchemy, database drivers, Optuna and the file system each raise their own
        where = plan.settings.storage or str(folder.journal)
        raise UserError(
            f"Storage {where!r} cannot be used ({type(error).__name__}: {one_line(error)[:300]}); all scores are "
            "saved: free it, or make room, and run the same command with --resume."
        ) from error


def _mark(attributes: Mapping[str, Any]) -> str:
    """Returns what two trials share exactly if they have the same schedule and origin."""
    told = [attributes.get(name) for name in ("label", "schedule", "continues")]
    return attributes.get(_MARK) or hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]


def _open_journal(journal: Path, brief: bool = True) -> optuna.storages.BaseStorage:
    """Opens a journal.

    Args:
        journal: The file.
        brief: Whether trials are read without what they consist of. Optuna keeps in memory whatever a journal has,
            which is 10 kB per trial.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    class Brief(JournalFileBackend):
        def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
            for log in super().read_logs(log_number_from):
                told = log.get("user_attrs")  # which a trial that was written in one piece has
                if told is not None:
                    kept = {"label": told.get("label"), _MARK: _mark(told)}
                    log |= {"params": {}, "distributions": {}, "system_attrs": {}}
                    log["user_attrs"] = {} if log_number_from else kept  # later ones are not asked for
                yield log

    drop_unfinished_line(journal)
    Path(f"{journal}.lock").unlink(missing_ok=True)  # left by a killed process; the folder's lock is ours
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return JournalStorage((Brief if brief else JournalFileBackend)(str(journal)))


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
