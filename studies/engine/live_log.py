"""Logs a search to MLflow while it runs, and never makes the search wait."""

from __future__ import annotations

import threading
import warnings
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from objectives.base import loss_sign
from studies.records.environment import environment
from studies.report.mlflow_runs import (
    ENVIRONMENT,
    LIVE_TAG,
    PARENT_TAG,
    TRIAL_TAG,
    StudyRuns,
    live_parent,
    stage_params,
    study_params,
)

if TYPE_CHECKING:
    from types import TracebackType

    from studies.engine.progress import Progress
    from studies.propose.trial import Trial
    from studies.records.study_folder import StudyFolder

_PAUSE_S = 2.0  # between two writes
_LONGEST_PAUSE_S = 60.0  # between two tries to reach a server that is away
_LAST_CALL_S = 10.0  # what the end of the search waits for a call to a server


class LiveLog:
    """Writes a parent run when the search starts, and a child run per trial as it finishes.

    A thread writes the newest progress, which has all trials: a server that was away gets what it missed, and no
    queue grows. A resumed search continues the parent run of the interrupted one, and `log_study` continues it
    when the study is finished. An interrupted search leaves it as killed.

    Args:
        study: The study; its folder may not exist before the first `show`.
        tracking_uri: MLflow server or database; None for ``mlflow.db`` in the folder of the studies.
    """

    def __init__(self, study: StudyFolder, tracking_uri: str | None):
        self._study = study
        self._tracking_uri = tracking_uri
        self._local = (
            tracking_uri is None or "://" not in tracking_uri or tracking_uri.startswith(("sqlite", "file"))
        )
        self._progress: Progress | None = None
        self._news, self._closing, self._interrupted = threading.Event(), threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="mlflow", daemon=True)
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        self._cleanup.enter_context(environment(ENVIRONMENT))
        self._cleanup.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", module=r"(mlflow|sqlalchemy|alembic)(\.|$)")
        return self

    def show(self, progress: Progress) -> None:
        """Takes the progress of the search and returns at once; the first call starts the log."""
        first, self._progress = self._progress is None, progress
        self._news.set()
        if first:
            self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the log after the call that it is in; a server that does not answer is not waited for."""
        self._interrupted = kind is not None
        self._closing.set()
        self._news.set()
        if self._progress is not None:
            self._thread.join(None if self._local else _LAST_CALL_S)
        self._cleanup.close()

    def _run(self) -> None:
        pause = _PAUSE_S
        writer: _Writer | None = None
        while not self._closing.is_set():
            self._news.wait()
            self._news.clear()
            try:
                writer = writer or _Writer(StudyRuns(self._study, self._tracking_uri), self._study)
                if self._progress is not None and not self._closing.is_set():
                    writer.write(self._progress, self._closing)
                pause = _PAUSE_S
            except Exception:  # MLflow, requests and SQLAlchemy each raise their own; `log_study` tells the last
                writer, pause = None, min(2 * pause, _LONGEST_PAUSE_S)
                self._news.set()
            self._closing.wait(pause)
        if writer is not None and self._interrupted:
            try:
                writer.kill()
            except Exception:  # the search is over, and its own error is the one to tell
                return


class _Writer:
    """Brings the runs of a study up to date; a new one reads from the store what is there."""

    def __init__(self, runs: StudyRuns, study: StudyFolder):
        self._runs, self._study = runs, study
        known = runs.all()
        live = live_parent(known)
        self._parent = live or runs.start(study.name, {LIVE_TAG: "true", "tuner.model": study.settings.model})
        if live:
            runs.client.update_run(live, status="RUNNING")
        runs.log(self._parent, study_params(study), {})
        trials = {run.data.tags[TRIAL_TAG]: run for run in known if run.data.tags.get(PARENT_TAG) == self._parent}
        self._begun = {number: run.info.run_id for number, run in trials.items()}
        self._written = {number for number, run in trials.items() if run.info.status != "RUNNING"}
        self._shown: tuple[str, int] | None = None

    def write(self, progress: Progress, closing: threading.Event) -> None:
        """Writes the progress to the parent, and the trials that have no run yet, until `closing` is set."""
        now = (progress.phase, progress.trials_done)
        if now != self._shown:
            metrics = {"trials": progress.trials_done, "tflops_spent": progress.tflops_spent}
            metrics |= {"elapsed_s": progress.elapsed_s}
            metrics |= {f"best.{name}": value for name, value in progress.best.items()}
            self._runs.log(self._parent, {}, metrics, step=progress.trials_done)
            self._runs.client.set_tag(self._parent, "tuner.phase", progress.phase)
            self._shown = now
        for number, trial in enumerate(progress.recorded):
            if closing.is_set():
                return
            if str(number) not in self._written:
                self._write_trial(str(number), trial)

    def _write_trial(self, number: str, trial: Trial) -> None:
        tags = {LIVE_TAG: "true", "tuner.prompts": str(self._study.identity["rungs"][trial.rung])}
        run = self._begun.get(number) or self._runs.start_trial(self._parent, number, trial.label, tags)
        self._begun[number] = run
        metrics = {"tflops": trial.price.tflops, "nfe": trial.price.nfe}
        if trial.succeeded:
            ways = self._study.directions.items()
            signed = zip(ways, trial.result.losses, strict=True)
            metrics |= {name: loss_sign(way) * loss for (name, way), loss in signed}
        self._runs.log(run, stage_params(trial.schedule), metrics)
        self._runs.end(run, "FINISHED" if trial.succeeded else "FAILED")
        self._written.add(number)

    def kill(self) -> None:
        """Marks the parent as interrupted."""
        self._runs.end(self._parent, "KILLED")
